//! The HTTP surfaces: each translates its own words into a [`Job`](crate::job::Job) and back, and decides nothing.
//!
//! A request passes the [`guard`] (host, origin, key), then its surface, which asks the [`Desk`]. The router
//! holds no other state, so tests put any desk behind it.

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use potluck_primitives::MicroCredits;
use tokio::sync::mpsc;

use crate::{
    config::Config,
    dispatch::provider::{BoxFuture, Offer},
    inference::{
        Counters, EmbedRequest, Embedded, LoadedModel, ModelDetails, ModelEntry, PullError, PullProgress,
        StoreError,
    },
    job::{Bill, Job, JobError, KeepAlive, Mode, Origin, Reply},
    memory::Memory,
    node::pool::Pool,
};

pub mod admin;
pub mod body;
#[cfg(feature = "public")]
mod chain;
mod embed;
pub mod error;
pub mod fields;
pub mod guard;
pub mod mcp;
pub mod memory;
pub mod metrics;
pub mod ollama;
pub mod openai;
mod policy;
mod pool;
#[cfg(feature = "public")]
mod public;
pub mod pump;
mod running;
mod sampling;
pub mod time;
pub mod tools;

pub use error::ApiError;

/// Names the mode a reply was made in, and asks for one.
pub const MODE_HEADER: HeaderName = HeaderName::from_static("x-potluck-mode");
/// Names the node that answered.
pub const NODE_HEADER: HeaderName = HeaderName::from_static("x-potluck-node");
/// Names the job in replies, for `potluck policy explain`.
pub const JOB_HEADER: HeaderName = HeaderName::from_static("x-potluck-job");

/// Says what a request may cost in the public pool at most, in credits.
pub const PRICE_HEADER: HeaderName = HeaderName::from_static("x-potluck-max-price");
/// Says what a public answer cost, in credits; in replies that are not streamed.
pub const COST_HEADER: HeaderName = HeaderName::from_static("x-potluck-cost");
/// Says how well the provider of a public answer is known to answer as it should.
pub const AUDIT_HEADER: HeaderName = HeaderName::from_static("x-potluck-audit");
/// The receipt of a public answer, in hexadecimal; in replies that are not streamed.
pub const RECEIPT_HEADER: HeaderName = HeaderName::from_static("x-potluck-receipt");

/// What the surfaces ask of the node.
pub trait Desk: Send + Sync + fmt::Debug {
    /// Starts a job.
    ///
    /// # Errors
    /// A typed refusal; what goes wrong later comes through the reply.
    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>>;

    /// Makes vectors of texts. Dropping the future cancels it.
    ///
    /// # Errors
    /// A typed refusal.
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embedded, JobError>>;

    /// Models that can be asked for.
    fn models(&self) -> BoxFuture<'_, Vec<ModelEntry>>;

    /// What a model's file says about itself.
    ///
    /// # Errors
    /// No such model, or a file that cannot be read.
    fn details(&self, model: String) -> BoxFuture<'_, Result<ModelDetails, StoreError>>;

    /// Models in memory.
    fn loaded(&self) -> BoxFuture<'_, Vec<LoadedModel>>;

    /// Loads a model, or sets a loaded one's keep-alive time.
    ///
    /// # Errors
    /// No such model, or one that cannot be loaded.
    fn load(&self, model: String, keep_alive: Option<KeepAlive>) -> BoxFuture<'_, Result<(), JobError>>;

    /// Unloads a model; whether it was loaded.
    ///
    /// # Errors
    /// [`JobError::ModelNotFound`].
    fn unload(&self, model: String) -> BoxFuture<'_, Result<bool, JobError>>;

    /// Deletes a model from the node's own store.
    ///
    /// # Errors
    /// No such model, or one that is another program's.
    fn remove(&self, model: String) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Fetches a model; dropping the receiver stops the pull.
    fn pull(&self, reference: &str) -> mpsc::Receiver<Result<PullProgress, PullError>>;

    /// Copies a model from members of the pool: `from` is a member, or `pool` for all of them. Otherwise as
    /// [`Desk::pull`].
    fn pull_from(&self, model: &str, from: &str) -> mpsc::Receiver<Result<PullProgress, PullError>> {
        let _ = (model, from);
        refused(PullError::NoPool)
    }

    /// The memory of the owner's agents; `None` when this node keeps none.
    fn memory(&self) -> Option<&Memory>;

    /// The trusted pool; `None` on a node that runs for one command only.
    fn pool(&self) -> Option<&Pool> {
        None
    }

    /// The chain of the public pool; `None` on a node that runs for one command only.
    #[cfg(feature = "public")]
    fn settlement(&self) -> Option<&crate::settlement::Settlement> {
        None
    }

    /// The public pool; `None` on a node that runs for one command only.
    #[cfg(feature = "public")]
    fn public(&self) -> Option<&crate::node::public::Public> {
        None
    }

    /// Models that members of the pool can be asked for, and their longest context.
    fn offers(&self, mode: Mode) -> BoxFuture<'_, Vec<Offer>> {
        let _ = mode;
        Box::pin(async { Vec::new() })
    }

    /// What has been done since the start.
    fn counters(&self) -> Counters;

    /// Whether jobs are taken, for `/readyz`.
    fn ready(&self) -> bool;
}

/// A pull that does not even begin.
pub(crate) fn refused(error: PullError) -> mpsc::Receiver<Result<PullProgress, PullError>> {
    let (sender, receiver) = mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(Err(error));
    receiver
}

/// What every handler holds.
#[derive(Clone, Debug)]
pub struct Api {
    pub(crate) desk: Arc<dyn Desk>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) metrics: Arc<metrics::Metrics>,
    pub(crate) summaries: Arc<ollama::Summaries>,
}

/// What the surfaces know of the node.
#[derive(Debug)]
pub struct Settings {
    /// The configuration.
    pub config: Config,
    /// The node's id, for `x-potluck-node`.
    pub node: String,
    /// The address it serves on.
    pub address: SocketAddr,
    /// The owner's token, with every right.
    pub admin_token: String,
    /// Seconds since 1970 when it began to serve.
    pub since: u64,
}

impl Api {
    /// The state of a router.
    pub fn new(desk: Arc<dyn Desk>, settings: Settings) -> Self {
        Self { desk, settings: Arc::new(settings), metrics: Arc::default(), summaries: Arc::default() }
    }

    /// All routes with their guards.
    pub fn router(self) -> Router {
        let router = Router::new()
            .route("/", get(front))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(admin::ready))
            .route("/metrics", get(metrics::render))
            .merge(openai::routes())
            .merge(ollama::routes())
            .merge(admin::routes())
            .merge(memory::routes())
            .merge(policy::routes())
            .merge(pool::routes())
            .merge(mcp::routes(&self));
        #[cfg(feature = "public")]
        let router = router.merge(chain::routes()).merge(public::routes());
        router
            .fallback(not_found)
            .method_not_allowed_fallback(wrong_method)
            .layer(middleware::from_fn_with_state(self.clone(), guard::check))
            .layer(middleware::from_fn_with_state(self.clone(), label))
            .with_state(self)
    }

    pub(crate) async fn submit(&self, job: Job) -> Result<Reply, JobError> {
        self.metrics.submitted(job.mode);
        let id = job.id;
        let outcome = self.desk.submit(job).await;
        if outcome.is_err() {
            self.metrics.refused();
        }
        outcome.map(|reply| reply.of(id))
    }
}

/// Names mode and node on every reply that does not yet, and counts it.
async fn label(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    api.metrics.responded(&path, response.status());
    let headers = response.headers_mut();
    if !headers.contains_key(MODE_HEADER) {
        headers.insert(MODE_HEADER, HeaderValue::from_static(api.settings.config.mode.as_str()));
    }
    if !headers.contains_key(NODE_HEADER)
        && let Ok(node) = HeaderValue::from_str(&api.settings.node)
    {
        headers.insert(NODE_HEADER, node);
    }
    response
}

/// Writes mode, node and job of a running answer into a response.
pub(crate) fn label_reply(response: &mut Response, origin: &Origin) {
    let headers = response.headers_mut();
    headers.insert(MODE_HEADER, HeaderValue::from_static(origin.mode.as_str()));
    if let Ok(node) = HeaderValue::from_str(&origin.node) {
        headers.insert(NODE_HEADER, node);
    }
    if let Ok(job) = HeaderValue::from_str(&origin.job.to_string())
        && !origin.job.is_nil()
    {
        headers.insert(JOB_HEADER, job);
    }
    if let Some(billed) = origin.bill.as_ref().and_then(Bill::get) {
        let cost = MicroCredits(billed.cost.into()).to_string();
        for (name, value) in
            [(COST_HEADER, &cost), (AUDIT_HEADER, &billed.audit), (RECEIPT_HEADER, &billed.receipt)]
        {
            if let Ok(value) = HeaderValue::from_str(value)
                && !value.is_empty()
            {
                headers.insert(name, value);
            }
        }
    }
}

/// What public answers cost, as the usage of a stream says it; `None`: nothing was to be paid.
pub(crate) fn billed(origin: &Origin) -> Option<serde_json::Value> {
    let billed = origin.bill.as_ref()?.get()?;
    let cost = MicroCredits(billed.cost.into()).to_string();
    Some(serde_json::json!({"cost": cost, "audit": billed.audit, "receipt": billed.receipt}))
}

async fn not_found(request: Request) -> Response {
    let path = request.uri().path();
    ApiError::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}; see / for what there is"))
        .code("not_found")
        .respond(path)
}

async fn wrong_method(request: Request) -> Response {
    let path = request.uri().path();
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} is not a method of {path}", request.method()))
        .code("method_not_allowed")
        .respond(path)
}

/// `/`: a page for people, Ollama's greeting for its clients.
async fn front(State(api): State<Api>, request: Request) -> Response {
    let wants_page = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if wants_page { Html(page(&api)).into_response() } else { "Ollama is running\n".into_response() }
}

fn page(api: &Api) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let address = api.settings.address;
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Potluck</title><style>body{{font:16px/1.5 system-ui;max-width:40em;margin:3em auto;padding:0 1em}}\
         code{{background:#8882;padding:.1em .3em}}</style><h1>Potluck {version}</h1>\
         <p>This node answers AI requests on this machine. Point your tools at:</p><ul>\
         <li>OpenAI: <code>http://{address}/v1</code> (<a href=/v1/models>models</a>)</li>\
         <li>Ollama: <code>http://{address}</code> (<a href=/api/tags>models</a>)</li>\
         <li>Memory for agents (MCP): <code>http://{address}/mcp</code></li>\
         <li>State: <a href=/potluck/v1/status>status</a>, <a href=/healthz>health</a>, <a href=/metrics>metrics</a></li>\
         </ul><p>In a shell: <code>potluck run guide \"How do I join a pool?\"</code></p></html>"
    )
}

/// A route that answers POST.
pub(crate) fn on_post<H, T>(handler: H) -> axum::routing::MethodRouter<Api>
where
    H: axum::handler::Handler<T, Api>,
    T: 'static,
{
    post(handler)
}

#[cfg(test)]
mod tests;
