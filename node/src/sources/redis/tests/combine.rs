//! Sorted sets made out of others, with every kind of score.

use super::*;

const SCORES: [&str; 6] = ["-inf", "inf", "0", "5", "-0.1", "0.7"];
const WEIGHTS: [&str; 4] = ["0", "1", "-0.3", "inf"];

#[tokio::test(flavor = "multi_thread")]
async fn sets_are_combined_as_every_server_combines_them() {
    for server in every_server(&[]).await {
        let mut client = server.client().await;
        let mut reader = Reader::start(&server).await;
        reader.matches(&mut client).await;
        for (at, score) in SCORES.iter().enumerate() {
            client.say(&format!("ZADD one:{at} {score} m")).await;
            // Of one size with the first, and larger.
            client.say(&format!("ZADD same:{at} {score} m")).await;
            client.say(&format!("ZADD more:{at} {score} m 1 n")).await;
        }
        for aggregate in ["SUM", "MIN", "MAX"] {
            combine(&mut client, "ZUNIONSTORE", aggregate).await;
            combine(&mut client, "ZINTERSTORE", aggregate).await;
        }
        reader.matches(&mut client).await;
        assert_eq!(reader.losses, []);
    }
}

/// Every two scores under every two weights, of two sets and of three.
async fn combine(client: &mut RedisClient, how: &str, aggregate: &str) {
    for (one, other) in pairs(SCORES.len()) {
        for (weight, second) in pairs(WEIGHTS.len()) {
            let (weight, second) = (WEIGHTS[weight], WEIGHTS[second]);
            let name = format!("{how}:{aggregate}:{one}:{other}:{weight}:{second}");
            let rest = format!("AGGREGATE {aggregate}");
            for inputs in [
                format!("{name}:2 2 one:{one} more:{other} WEIGHTS {weight} {second}"),
                format!("{name}:same 2 one:{one} same:{other} WEIGHTS {weight} {second}"),
                format!("{name}:3 3 one:{one} more:{other} same:2 WEIGHTS {weight} {second} 3"),
            ] {
                client.say(&format!("{how} {inputs} {rest}")).await;
            }
        }
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |one| (0..count).map(move |other| (one, other)))
}
