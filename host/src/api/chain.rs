//! The public pool's chain: `/potluck/v1/{credits,provider,gov,chain}`, for the node's own commands.

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::StatusCode,
    routing::get,
};
use potluck_chain_client::{ClientError, link::LinkError, outbox::OutboxError, signer::AskError};
use potluck_primitives::PolicyKind;
use serde_json::Value;

use super::{
    Api, ApiError, body,
    error::OpenAi,
    fields::Fields,
    guard::{self, Caller},
    on_post,
};
use crate::{
    policy::Kind,
    settlement::{Proposed, Settlement, SettlementError, Vote, book::BookError},
};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/potluck/v1/credits", get(balance))
        .route("/potluck/v1/credits/history", get(history))
        .route("/potluck/v1/credits/deposit", on_post(deposit))
        .route("/potluck/v1/credits/withdraw", on_post(withdraw))
        .route("/potluck/v1/credits/redeem", on_post(redeem))
        .route("/potluck/v1/credits/pay", on_post(pay))
        .route("/potluck/v1/credits/vouchers", get(vouchers).post(accept))
        .route("/potluck/v1/provider", get(provider))
        .route("/potluck/v1/provider/register", on_post(register))
        .route("/potluck/v1/provider/deregister", on_post(deregister))
        .route("/potluck/v1/provider/verify", on_post(verify))
        .route("/potluck/v1/provider/stake", on_post(stake))
        .route("/potluck/v1/provider/unstake", on_post(unstake))
        .route("/potluck/v1/gov/policies", get(approved))
        .route("/potluck/v1/gov/referenda", get(referenda))
        .route("/potluck/v1/gov/propose", on_post(propose))
        .route("/potluck/v1/gov/deposit", on_post(pay_deposit))
        .route("/potluck/v1/gov/vote", on_post(vote))
        .route("/potluck/v1/chain", get(status))
        .route("/potluck/v1/chain/forget", on_post(forget))
}

impl Api {
    /// The chain, for a caller that may administer the node.
    fn settlement_for(&self, caller: &Caller) -> Result<&Settlement, ApiError> {
        guard::admin_only(caller)?;
        self.desk.settlement().ok_or_else(|| {
            let message =
                "this node runs for one command only and settles nothing; start one with `potluck up`";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).code("chain_unavailable")
        })
    }
}

type Answer = Result<Json<Value>, OpenAi>;

async fn balance(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.settlement_for(&caller)?.balance().await?))
}

async fn history(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.settlement_for(&caller)?.history().await?))
}

async fn deposit(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let amount = fields.required_string("amount")?;
    fields.finish()?;
    Ok(Json(settlement.deposit(&amount).await?))
}

async fn withdraw(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let amount = fields.string("amount")?;
    let cancel = fields.bool("cancel")?.unwrap_or_default();
    fields.finish()?;
    Ok(Json(settlement.withdraw(amount.as_deref(), cancel).await?))
}

async fn redeem(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.settlement_for(&caller)?.redeem().await?))
}

async fn pay(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let to = fields.required_string("to")?;
    let amount = fields.required_string("amount")?;
    let blocks = fields.integer("blocks", 1..=i64::from(u32::MAX))?.and_then(|it| it.try_into().ok());
    fields.finish()?;
    Ok(Json(settlement.pay(&to, &amount, blocks).await?))
}

async fn vouchers(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.settlement_for(&caller)?.vouchers().await?))
}

async fn accept(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let voucher = fields.required_string("voucher")?;
    fields.finish()?;
    Ok(Json(settlement.take(&voucher).await?))
}

async fn provider(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.settlement_for(&caller)?.provider().await?))
}

async fn register(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let hardware = fields.string("hardware")?.unwrap_or_else(machine);
    let mut models = fields.strings("models", 64)?;
    fields.finish()?;
    if models.is_empty() {
        models = api.desk.models().await.into_iter().map(|model| model.name).collect();
    }
    Ok(Json(settlement.register(&hardware, &models).await?))
}

/// What kind of machine this is, in as many words as help to choose one.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{} {}, {cores} threads", std::env::consts::OS, std::env::consts::ARCH)
}

async fn deregister(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.settlement_for(&caller)?.deregister().await?))
}

async fn verify(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let joins = fields.bool("on")?.unwrap_or(true);
    fields.finish()?;
    Ok(Json(settlement.verify(joins).await?))
}

async fn stake(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let amount = fields.required_string("amount")?;
    fields.finish()?;
    Ok(Json(settlement.stake(&amount).await?))
}

async fn unstake(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let amount = fields.string("amount")?;
    fields.finish()?;
    Ok(Json(settlement.unstake(amount.as_deref()).await?))
}

async fn approved(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.settlement_for(&caller)?.approved().await?))
}

async fn referenda(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.settlement_for(&caller)?.referenda().await?))
}

async fn propose(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let kind: Kind =
        fields.required_string("kind")?.parse().map_err(|error| ApiError::invalid("kind", error))?;
    let proposed = Proposed {
        kind: match kind {
            Kind::Routing => PolicyKind::Routing,
            Kind::Pricing => PolicyKind::Pricing,
            Kind::Slashing => PolicyKind::Slashing,
        },
        component: fields.required_string("component")?,
        from: fields.integer("from", 0..=i64::from(u32::MAX))?.and_then(|from| from.try_into().ok()),
        uri: fields.string("uri")?.unwrap_or_default(),
        revoke: fields.bool("revoke")?.unwrap_or_default(),
    };
    fields.finish()?;
    Ok(Json(settlement.propose(proposed).await?))
}

/// The number of a referendum, which must be there.
fn referendum(fields: &mut Fields) -> Result<u32, ApiError> {
    let found = fields.integer("referendum", 0..=i64::from(u32::MAX))?;
    found
        .and_then(|index| index.try_into().ok())
        .ok_or_else(|| ApiError::invalid("referendum", "is required: a number of `potluck gov status`"))
}

async fn pay_deposit(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let referendum = referendum(&mut fields)?;
    fields.finish()?;
    Ok(Json(settlement.pay_deposit(referendum).await?))
}

async fn vote(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let vote = Vote {
        referendum: referendum(&mut fields)?,
        aye: fields.bool("aye")?.ok_or_else(|| ApiError::invalid("aye", "is required: true or false"))?,
        tokens: fields.required_string("tokens")?,
        conviction: fields.integer("conviction", 0..=6)?.and_then(|it| it.try_into().ok()).unwrap_or(1),
    };
    fields.finish()?;
    Ok(Json(settlement.cast(vote).await?))
}

async fn status(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.settlement_for(&caller)?.status().await))
}

async fn forget(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let settlement = api.settlement_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let vouchers = fields.bool("vouchers")?.unwrap_or_default();
    fields.finish()?;
    Ok(Json(settlement.forget(vouchers).await?))
}

impl From<SettlementError> for ApiError {
    fn from(error: SettlementError) -> Self {
        let (status, code) = match &error {
            SettlementError::Off => (StatusCode::NOT_FOUND, "no_chain"),
            SettlementError::Offline => (StatusCode::FORBIDDEN, "offline"),
            SettlementError::Amount { .. } | SettlementError::Invalid { .. } | SettlementError::Call(_) => {
                (StatusCode::BAD_REQUEST, "invalid_value")
            }
            SettlementError::Refused { .. } => (StatusCode::CONFLICT, "chain_refused"),
            SettlementError::Client(error) => client(error),
            SettlementError::Book(error) => book(error),
            SettlementError::Work(_) => (StatusCode::SERVICE_UNAVAILABLE, "work_not_found"),
            SettlementError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
        };
        Self::new(status, error.to_string()).code(code)
    }
}

fn book(error: &BookError) -> (StatusCode, &'static str) {
    match error {
        BookError::Escrow { .. } => (StatusCode::CONFLICT, "escrow_too_small"),
        BookError::NotOurs
        | BookError::TooShort { .. }
        | BookError::Shorter { .. }
        | BookError::Old { .. }
        | BookError::Less { .. }
        | BookError::Forged
        | BookError::Overflow => (StatusCode::BAD_REQUEST, "voucher_refused"),
        BookError::Lanes(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_lanes"),
        BookError::Journal(_) | BookError::Unknown { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, "vouchers_failed")
        }
    }
}

fn client(error: &ClientError) -> (StatusCode, &'static str) {
    match error {
        ClientError::NotConnected { .. } | ClientError::Link(LinkError::Unreachable(_)) => {
            (StatusCode::BAD_GATEWAY, "chain_unreachable")
        }
        ClientError::Link(LinkError::OtherChain { .. }) => (StatusCode::CONFLICT, "other_chain"),
        ClientError::Link(LinkError::OtherRuntime(_)) => (StatusCode::CONFLICT, "other_runtime"),
        ClientError::Link(LinkError::Nonsense(_)) => (StatusCode::BAD_GATEWAY, "chain_nonsense"),
        ClientError::Ask(AskError::Outbox(OutboxError::Full)) => {
            (StatusCode::TOO_MANY_REQUESTS, "outbox_full")
        }
        ClientError::Ask(AskError::Outbox(OutboxError::Call(_))) => {
            (StatusCode::BAD_REQUEST, "invalid_value")
        }
        ClientError::Ask(AskError::Closed) => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
        ClientError::Ask(AskError::Outbox(_)) | ClientError::Files(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "outbox_failed")
        }
    }
}
