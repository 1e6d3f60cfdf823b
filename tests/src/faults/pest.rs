//! Subscribers that take nothing, and others that come with the wrong token.

use std::time::Duration;

use tidegate_proto::v1::subscribe_start::From;
use tidegate_proto::{Frame, Token};
use tokio::time::timeout;
use tonic::{Code, Status, async_trait};

use super::arena::GENERATED;
use super::{Arena, Fault};
use crate::Outcome;
use crate::feed::{ANSWER, Open, open};

/// Subscribers that stop reading, at each node.
const LAZY: usize = 4;
/// How long the others may then wait for a change.
const OTHERS: Duration = Duration::from_secs(3);
/// A sequence no shard reaches.
const FAR: u64 = 1 << 40;

/// Some subscribers stop reading; others resume with tokens that are old, of the
/// future, of another cluster, or damaged.
pub(super) struct Pest {
    lasts: Duration,
    lazy: Vec<Open>,
    answers: Vec<(&'static str, Code)>,
    worst: Duration,
}

impl Pest {
    pub(super) fn of(lasts: Duration) -> Self {
        Self { lasts, lazy: Vec::new(), answers: Vec::new(), worst: Duration::ZERO }
    }

    async fn wrong_tokens(&mut self, address: &str, token: &[u8]) -> Outcome<()> {
        let own = Token::decode(token)?;
        let foreign = Token { cluster_id: "another".to_owned(), ..own.clone() };
        let mut future = own.clone();
        for sequence in future.sequences.values_mut() {
            sequence.0 += FAR;
        }
        let mut damaged = token.to_vec();
        if let Some(last) = damaged.last_mut() {
            *last ^= 1;
        }
        for (what, token, wanted) in [
            ("foreign", foreign.encode(), Code::FailedPrecondition),
            ("future", future.encode(), Code::OutOfRange),
            ("damaged", damaged, Code::InvalidArgument),
        ] {
            let status =
                refused(address, token).await.ok_or_else(|| format!("a {what} token was taken"))?;
            if status.code() != wanted || status.message().is_empty() {
                return Err(format!("a {what} token was answered with {status}").into());
            }
            self.answers.push((what, status.code()));
        }
        Ok(())
    }
}

#[async_trait]
impl Fault for Pest {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let addresses = arena.world.cluster.addresses();
        for address in &addresses {
            for _ in 0..LAZY {
                self.lazy.push(open(address, GENERATED, From::Earliest(true), 1).await?);
            }
        }
        let token = arena.generated.token();
        self.wrong_tokens(&addresses[0], &token).await?;
        resumes(&addresses[0], token).await?;
        let count = self.lazy.len();
        Ok(format!(
            "{count} subscribers stop reading for {:?}, others have wrong tokens",
            self.lasts
        ))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        let gaps = arena.generated.gaps();
        self.worst = gaps.into_values().max().unwrap_or_default();
        self.lazy.clear();
        Ok(())
    }

    async fn proof(&self, _: &Arena) -> Outcome<String> {
        if self.worst > OTHERS {
            return Err(format!("another subscriber waited {:?}", self.worst).into());
        }
        Ok(format!(
            "wrong tokens got {:?}, an old one went on; others waited {:?}",
            self.answers, self.worst
        ))
    }
}

/// How a subscription with this token is refused; `None` if it is not.
async fn refused(address: &str, token: Vec<u8>) -> Option<Status> {
    let opened = open(address, GENERATED, From::Token(token.into()), 1 << 20).await;
    let mut responses = match opened {
        Ok((_requests, responses)) => responses,
        Err(error) => return error.downcast::<Status>().ok().map(|status| *status),
    };
    timeout(ANSWER, responses.message()).await.ok()?.err()
}

/// Fails unless a subscriber with this token gets what follows it.
async fn resumes(address: &str, token: Vec<u8>) -> Outcome<()> {
    let own = Token::decode(&token)?;
    let opened = open(address, GENERATED, From::Token(token.into()), 1 << 20).await?;
    let (_requests, mut responses) = opened;
    let response = timeout(ANSWER, responses.message()).await;
    let response =
        response.map_err(|_| format!("at {address} nothing came after a token in {ANSWER:?}"))?;
    let response = response?.ok_or("the feed ended")?;
    let first = Frame::parse(response.frames[0].clone())?.first().0;
    let shard: Option<u32> = response.shard.strip_prefix("datagen-").and_then(|it| it.parse().ok());
    let at = shard.and_then(|shard| own.sequences.get(&shard)).map_or(0, |at| at.0);
    if first != at + 1 {
        return Err(format!("a token at {at} went on with {first}").into());
    }
    Ok(())
}
