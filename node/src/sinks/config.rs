//! stub
use tidegate_proto::v1::Check;
use crate::config::SinkSpec;
use crate::error::Result;
use crate::sinks::*;
/// stub
#[derive(Clone, Debug)]
pub struct SinkConfig;
impl SinkConfig { /// s
 pub fn parse(_s: &SinkSpec) -> Result<Self> { Ok(Self) } }
/// s
pub async fn open(_c: &SinkConfig, _s: &SinkShard) -> Result<Opened> { Err(crate::error::Error::new(crate::error::ErrorKind::Config, "")) }
/// s
pub async fn check(_c: &SinkConfig) -> Vec<Check> { vec![] }
