//! The connection to a node of the chain, with a bound on everything that comes over it.

use std::time::Duration;

use subxt::rpcs::client::{
    RpcClient,
    reconnecting_rpc_client::{ExponentialBackoff, RpcClient as Reconnecting},
};

use crate::link::LinkError;

/// Longest answer that is read, in bytes; the metadata is the longest by far.
const MAX_ANSWER: u32 = 8 << 20;
/// Longest request, in bytes.
const MAX_REQUEST: u32 = 1 << 20;
/// Requests that wait for an answer.
const MAX_PENDING: u32 = 128;
/// How long an answer may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to `ws://` or `wss://`; later it connects again by itself as often as needed.
///
/// # Errors
/// [`LinkError::Unreachable`] when nobody answers in time.
pub(crate) async fn connect(endpoint: &str) -> Result<RpcClient, LinkError> {
    // The program may be built without a default crypto provider; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let building = Reconnecting::builder()
        .max_response_size(MAX_ANSWER)
        .max_request_size(MAX_REQUEST)
        .max_concurrent_requests(MAX_PENDING)
        .request_timeout(ANSWER)
        .connection_timeout(CONNECT)
        .retry_policy(ExponentialBackoff::from_millis(200).max_delay(Duration::from_secs(15)))
        .build(endpoint.to_owned());
    // It would try for ever.
    match tokio::time::timeout(CONNECT, building).await {
        Ok(Ok(client)) => Ok(RpcClient::new(client)),
        Ok(Err(error)) => Err(LinkError::Unreachable(short(&error.to_string()))),
        Err(_) => Err(LinkError::Unreachable(format!("no connection to {endpoint} within 10 s"))),
    }
}

/// Words that came from elsewhere, cut to what anybody reads, without control characters.
pub(crate) fn short(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
