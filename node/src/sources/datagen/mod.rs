//! stub
use crate::error::Result;
use crate::sources::*;
/// stub
#[derive(Clone, Debug, serde::Deserialize)]
pub struct DatagenConfig {}
/// stub
pub struct Datagen;
#[async_trait]
impl Source for Datagen {
    fn traits(&self) -> SourceTraits { SourceTraits { kind: "x", merge: MergeRule::Seen, dynamic: false } }
    async fn discover(&self) -> Result<Vec<ShardSpec>> { Ok(vec![]) }
    async fn anchor(&self, _s: &ShardSpec) -> Result<Anchor> { Ok(Anchor::default()) }
    async fn stream(&self, _s: &ShardSpec, _p: &[u8]) -> Result<Box<dyn ChangeStream>> { Err(crate::error::Error::new(crate::error::ErrorKind::Config, "")) }
    async fn chunk(&self, _s: &ShardSpec, _c: u32, _u: &[u8]) -> Result<Box<dyn ChunkReader>> { Err(crate::error::Error::new(crate::error::ErrorKind::Config, "")) }
    async fn check(&self) -> Vec<Check> { vec![] }
}
impl Datagen { /// s
 pub fn new(_c: &DatagenConfig, _n: fn() -> i64) -> Result<Self> { Ok(Self) } }
