//! Commits whose answer is lost, owners that were replaced, a server that crashes.

use super::proxy::{Act, Fault, Point, Proxy};
use super::*;

#[tokio::test]
async fn a_lost_answer_to_a_commit_is_read_back() {
    let stage = Stage::new().await;
    let schema = stage.schema("");
    let proxy = Proxy::start(&stage.server).await;
    let mut opened = open(&schema.config(&proxy.url()), &shard(1)).await.unwrap();
    for (sequence, act) in [(1, Act::Swallow), (2, Act::TerminateBehind), (3, Act::Swallow)] {
        proxy.arm(Fault { point: Point::Commit, act });
        // Committed, or seen not to be, within the one call.
        match put(&mut opened, &changes(sequence, &[("a", Some("1"))])).await {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                opened.sink.flush().await.unwrap();
            }
        }
        let row = schema.query("SELECT tidegate_sequence FROM items");
        assert_eq!(row, sequence.to_string());
    }
    assert!(!proxy.is_armed());
}

#[tokio::test]
async fn an_owner_that_was_replaced_half_way_commits_nothing() {
    let stage = Stage::new().await;
    let all = [Point::Begin, Point::Data, Point::Sent, Point::Statement(1), Point::Commit];
    for point in all {
        let schema = stage.schema("");
        let proxy = Proxy::start(&stage.server).await;
        let mut old = open(&schema.config(&proxy.url()), &shard(1)).await.unwrap();
        put(&mut old, &changes(1, &[("a", Some("1"))])).await.unwrap();
        proxy.arm(Fault { point, act: Act::Hold });
        let zombie = tokio::spawn(async move {
            let written = put(&mut old, &changes(2, &[("a", Some("2")), ("b", Some("2"))])).await;
            (old, written)
        });
        proxy.held().await;
        // Frozen there, it keeps no lock that its successor has to wait for.
        let work = async {
            let mut new = schema.open(&shard(2)).await.unwrap();
            assert_eq!(new.committed.as_ref().unwrap().sequence, Sequence(1));
            put(&mut new, &changes(2, &[("a", Some("20"))])).await.unwrap();
            new
        };
        let in_time = tokio::time::timeout(std::time::Duration::from_secs(5), work).await;
        let mut new = in_time.expect("a frozen owner is not waited for");
        proxy.release();
        let (mut old, written) = zombie.await.unwrap();
        let mut error = match written {
            Ok(()) => panic!("an owner of an older epoch has written at {point:?}"),
            Err(error) => error,
        };
        // Its successor may have ended the session in which it asked, too: it asks again.
        if error.kind() == ErrorKind::Unavailable {
            error = old.sink.flush().await.unwrap_err();
        }
        assert_eq!(error.kind(), ErrorKind::Fenced, "{point:?}: {error}");
        assert_eq!(old.sink.flush().await.unwrap_err().kind(), ErrorKind::Fenced, "still");
        put(&mut new, &changes(3, &[("c", Some("30"))])).await.unwrap();
        let rows = "SELECT key, document FROM items ORDER BY key";
        assert_eq!(schema.query(rows), "a|20\nc|30", "{point:?}");
    }
}

/// The same where the successor may not end sessions: another role's.
#[tokio::test]
async fn an_owner_whose_session_lives_on_is_refused_by_the_row() {
    let stage = Stage::new().await;
    stage.server.query("CREATE ROLE other SUPERUSER LOGIN");
    let all = [Point::Begin, Point::Data, Point::Sent, Point::Statement(1), Point::Statement(2)];
    for point in all {
        let schema = stage.schema("");
        let proxy = Proxy::start(&stage.server).await;
        let url = proxy.url().replace("postgres@", "other@");
        let mut old = open(&schema.config(&url), &shard(1)).await.unwrap();
        put(&mut old, &changes(1, &[("a", Some("1"))])).await.unwrap();
        proxy.arm(Fault { point, act: Act::Hold });
        let zombie = tokio::spawn(async move {
            put(&mut old, &changes(2, &[("a", Some("2")), ("b", Some("2"))])).await
        });
        proxy.held().await;
        let mut new = schema.open(&shard(2)).await.unwrap();
        // Behind its merge it has locked the row that both write.
        let locked = point == Point::Statement(2);
        if locked {
            proxy.release();
        }
        put(&mut new, &changes(2, &[("a", Some("20"))])).await.unwrap();
        if !locked {
            proxy.release();
        }
        let error = zombie.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{point:?}: {error}");
        assert_eq!(schema.query("SELECT key, document FROM items"), "a|20", "{point:?}");
    }
}

#[tokio::test]
async fn of_two_owners_of_one_epoch_the_last_to_open_writes() {
    let stage = Stage::new().await;
    stage.server.query("CREATE ROLE other SUPERUSER LOGIN");
    let other = stage.server.url().replace("postgres@", "other@");
    for url in [stage.server.url(), other] {
        let schema = stage.schema("");
        let mut first = open(&schema.config(&url), &shard(1)).await.unwrap();
        first.sink.write(&changes(1, &[("a", Some("1"))])).await.unwrap();
        let mut second = schema.open(&shard(1)).await.unwrap();
        assert!(second.committed.is_none());
        // What it was told must stay true, so nothing may come after that.
        let written = first.sink.flush().await;
        let both = changes(1, &[("a", Some("2")), ("b", Some("2"))]);
        if url == stage.server.url() {
            // It has lost its session, and takes the row back.
            assert_eq!(written.unwrap_err().kind(), ErrorKind::Unavailable);
            let error = put(&mut second, &both).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            second.sink.flush().await.unwrap();
        } else {
            assert_eq!(written.unwrap_err().kind(), ErrorKind::Unknown);
            put(&mut second, &both).await.unwrap();
        }
        assert_eq!(schema.query("SELECT document FROM items WHERE key = 'a'"), "2");
        let error = first.sink.flush().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    }
}

#[tokio::test]
async fn a_server_that_crashes_comes_back_with_what_was_committed() {
    let mut server = Postgres::start(&[]).await;
    let text = format!("url = \"{}\"\ntls = false", server.url());
    let config: PostgresConfig = parse("[[sink]]", toml::from_str(&text).unwrap()).unwrap();
    let mut opened = open(&config, &shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("a", Some("1"))])).await.unwrap();
    opened.sink.write(&changes(2, &[("a", Some("2"))])).await.unwrap();
    server.restart().await;
    let error = opened.sink.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(opened.sink.flush().await.unwrap(), Some(Durable::vouch(Sequence(2))));
    assert_eq!(server.query("SELECT document FROM items"), "2");
}
