//! Finds somebody who answers.

use std::error::Error as _;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::failure::{Failure, FailureKind, Result};

/// How long a connection may take to come about.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// How long an answer may take: `plan` and `doctor` ask sources and sinks.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// The largest message taken: a batch with one document of the largest size.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The endpoints that may be asked, and the one asked now.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    urls: Vec<String>,
    /// Index into `urls`.
    at: usize,
    open: Option<Channel>,
}

impl Endpoints {
    /// Connects to nothing yet. A URL without a scheme is `http://`.
    pub(crate) fn new(urls: &[String]) -> Result<Self> {
        let urls = urls.iter().map(|url| with_scheme(url)).collect::<Result<Vec<_>>>()?;
        if urls.is_empty() {
            return Err(Failure::usage("--endpoint names no endpoint"));
        }
        Ok(Self { urls, at: 0, open: None })
    }

    /// The endpoint asked now.
    pub(crate) fn current(&self) -> &str {
        &self.urls[self.at]
    }

    /// The next connection is made to the next endpoint.
    pub(crate) fn move_on(&mut self) {
        self.at = (self.at + 1) % self.urls.len();
        self.open = None;
    }

    /// A connection to the first endpoint that takes one, the current one first.
    pub(crate) async fn channel(&mut self) -> Result<Channel> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        let mut tried = Vec::new();
        for _ in 0..self.urls.len() {
            match connect(self.current()).await {
                Ok(channel) => {
                    self.open = Some(channel.clone());
                    return Ok(channel);
                }
                Err(why) => tried.push(format!("{}: {why}", self.current())),
            }
            self.move_on();
        }
        Err(Failure::unreachable(format!(
            "nobody answers at {}; is a node running there? name another with --endpoint",
            tried.join(", nor at ")
        )))
    }

    /// Asks; another endpoint when one is not available or does not serve it.
    pub(crate) async fn ask<T, A, C>(&mut self, call: C) -> Result<T>
    where
        C: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let mut last = None;
        for _ in 0..self.urls.len() {
            let channel = match self.channel().await {
                Ok(channel) => channel,
                // What an endpoint said tells more than that others are silent.
                Err(silence) => return Err(last.unwrap_or(silence)),
            };
            let answer = tokio::time::timeout(ANSWER_WAIT, call(channel)).await;
            let status = match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(self.no_answer()),
            };
            let failure = Failure::of_status(self.current(), &status);
            if !another_may_do(&status) {
                return Err(failure);
            }
            last = Some(failure);
            self.move_on();
        }
        Err(last.unwrap_or_else(|| self.no_answer()))
    }

    /// [`Endpoints::ask`] for what can be repeated without harm: again, with
    /// pauses, while nobody answers.
    pub(crate) async fn ask_patiently<T, A, C>(&mut self, call: C) -> Result<T>
    where
        C: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        for pause_ms in [100, 300, 1000, 3000] {
            match self.ask(&call).await {
                Err(failure) if failure.kind() == FailureKind::Unreachable => {}
                other => return other,
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        self.ask(&call).await
    }

    fn no_answer(&self) -> Failure {
        let wait = ANSWER_WAIT.as_secs();
        Failure::unreachable(format!(
            "{} gave no answer within {wait} s; it may or may not have been done",
            self.current()
        ))
    }
}

/// Whether to ask elsewhere: nothing was done here.
fn another_may_do(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unimplemented)
}

fn with_scheme(url: &str) -> Result<String> {
    let url = url.trim().trim_end_matches('/');
    let host = match url.split_once("://") {
        None => url,
        Some(("http", host)) => host,
        Some((scheme, _)) => {
            let why = format!("{url}: {scheme} is not spoken yet; use http://HOST:PORT");
            return Err(Failure::usage(why));
        }
    };
    if host.is_empty() {
        return Err(Failure::usage(format!("\"{url}\" is no endpoint; use http://HOST:PORT")));
    }
    Ok(format!("http://{host}"))
}

async fn connect(url: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|_| "not a URL; use http://HOST:PORT".to_owned())?
        .connect_timeout(CONNECT_WAIT)
        .tcp_nodelay(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(1 << 20)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    endpoint.connect().await.map_err(|error| root(&error))
}

/// The cause below all causes: the others only say "transport error".
fn root(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(below) = cause {
        text = below.to_string();
        cause = below.source();
    }
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_may_be_left_out_but_not_another_one() {
        assert_eq!(with_scheme("127.0.0.1:7400").unwrap(), "http://127.0.0.1:7400");
        assert_eq!(with_scheme(" http://a:1/ ").unwrap(), "http://a:1");
        assert_eq!(with_scheme("https://a:1").unwrap_err().kind(), FailureKind::Usage);
        assert_eq!(with_scheme("").unwrap_err().kind(), FailureKind::Usage);
    }

    #[tokio::test]
    async fn silence_names_every_endpoint_that_was_tried() {
        // Port 1 of loopback: nobody listens there.
        let urls = ["127.0.0.1:1".to_owned(), "http://127.0.0.1:1".to_owned()];
        let failure = Endpoints::new(&urls).unwrap().channel().await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Unreachable);
        let text = failure.to_string();
        assert_eq!(text.matches("127.0.0.1:1").count(), 2, "{text}");
        assert!(text.contains("is a node running there?"), "{text}");
    }

    #[test]
    fn moving_on_comes_round() {
        let mut endpoints = Endpoints::new(&["a:1".to_owned(), "b:1".to_owned()]).unwrap();
        endpoints.move_on();
        assert_eq!(endpoints.current(), "http://b:1");
        endpoints.move_on();
        assert_eq!(endpoints.current(), "http://a:1");
    }
}
