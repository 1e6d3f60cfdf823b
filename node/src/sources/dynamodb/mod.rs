//! stub
use crate::error::Result;
use crate::sources::*;
/// stub
#[derive(Clone, Debug, serde::Deserialize)]
pub struct DynamodbConfig {}
/// stub
pub struct Dynamodb;
#[async_trait]
impl Source for Dynamodb {
    fn traits(&self) -> SourceTraits { SourceTraits { kind: "x", merge: MergeRule::Seen, dynamic: false } }
    async fn discover(&self) -> Result<Vec<ShardSpec>> { Ok(vec![]) }
    async fn anchor(&self, _s: &ShardSpec) -> Result<Anchor> { Ok(Anchor::default()) }
    async fn stream(&self, _s: &ShardSpec, _p: &[u8]) -> Result<Box<dyn ChangeStream>> { Err(crate::error::Error::new(crate::error::ErrorKind::Config, "")) }
    async fn chunk(&self, _s: &ShardSpec, _c: u32, _u: &[u8]) -> Result<Box<dyn ChunkReader>> { Err(crate::error::Error::new(crate::error::ErrorKind::Config, "")) }
    async fn check(&self) -> Vec<Check> { vec![] }
}
impl Dynamodb { /// s
 pub async fn open(_c: &DynamodbConfig) -> Result<Self> { Ok(Self) } }
