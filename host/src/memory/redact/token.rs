//! Tokens whose form alone tells what they are: a vendor's prefix and a body made by chance.

use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};

use super::SecretKind::{self, *};
use super::scan::{Rank, Scan};
use super::value;

/// A vendor's token: the fixed strings it begins with, and the whole form.
struct Rule {
    kind: SecretKind,
    anchors: &'static [&'static str],
    pattern: &'static str,
}

const fn rule(kind: SecretKind, anchors: &'static [&'static str], pattern: &'static str) -> Rule {
    Rule { kind, anchors, pattern }
}

/// Longest reach of a token: signed tokens may have a few thousand characters.
const REACH: usize = super::scan::WINDOW;

/// The forms, most of them from the vendors' own pages. `\w` is `[A-Za-z0-9_]`.
const RULES: &[Rule] = &[
    rule(AwsAccessKey, &["AKIA", "ASIA", "ABIA", "ACCA"], r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    rule(AwsSecretKey, &["ABSK"], r"ABSK[A-Za-z0-9+/]{80,}={0,2}"),
    rule(GithubToken, &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], r"gh[pousr]_\w{30,}"),
    rule(GithubToken, &["github_pat_"], r"github_pat_\w{22,}"),
    rule(
        GitlabToken,
        &[
            "glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glsoat-", "glagent-", "gloas-",
            "glimt-", "glffct-",
        ],
        r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|oas|imt|ffct)-[\w-]{18,}(?:\.[\w-]{2,}){0,2}",
    ),
    rule(GitlabToken, &["GR1348941"], r"GR1348941[\w-]{20,}"),
    rule(
        SlackToken,
        &["xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-", "xoxo-", "xoxc-", "xoxd-", "xoxe-"],
        r"xox[a-z]-[\w%/+-]{10,}",
    ),
    rule(SlackToken, &["xoxe.xox"], r"xoxe\.xox[bp]-[\w-]{10,}"),
    rule(SlackToken, &["xapp-"], r"xapp-\d-[\w-]{20,}"),
    rule(StripeKey, &["sk_live_", "sk_test_", "rk_live_", "rk_test_"], r"[rs]k_(?:live|test)_\w{14,}"),
    rule(StripeKey, &["whsec_"], r"whsec_[A-Za-z0-9+/]{20,}={0,2}"),
    rule(AnthropicKey, &["sk-ant-"], r"sk-ant-[\w-]{20,}"),
    rule(AiServiceKey, &["sk-or-v1-"], r"sk-or-v1-[a-f0-9]{32,}"),
    rule(AiServiceKey, &["sk-lf-", "sk-litellm-", "sk-hc-"], r"sk-(?:lf|litellm|hc)-[\w-]{20,}"),
    rule(
        OpenaiKey,
        &["sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-"],
        r"sk-(?:proj|svcacct|admin|None)-[\w-]{18,}",
    ),
    rule(OpenaiKey, &["sk-"], r"sk-[A-Za-z0-9]{18,}"),
    rule(OpenaiKey, &["sess-"], r"sess-[A-Za-z0-9]{40}"),
    rule(GoogleApiKey, &["AIza"], r"AIza[\w-]{33,39}"),
    rule(GoogleOauth, &["ya29."], r"ya29\.[\w-]{20,}(?:\.[\w-]+)*"),
    rule(GoogleOauth, &["GOCSPX-"], r"GOCSPX-[\w-]{20,}"),
    rule(GoogleOauth, &["1//0"], r"1//0[\w-]{30,}"),
    rule(HuggingfaceToken, &["hf_"], r"hf_[A-Za-z0-9]{30,}"),
    rule(HuggingfaceToken, &["api_org_"], r"api_org_[A-Za-z0-9]{30,}"),
    rule(NpmToken, &["npm_"], r"npm_[A-Za-z0-9]{32,}"),
    rule(PypiToken, &["pypi-"], r"pypi-[\w-]{40,}"),
    rule(DockerToken, &["dckr_pat_", "dckr_oat_"], r"dckr_[po]at_[\w-]{18,}"),
    rule(TwilioKey, &["SK"], r"SK[0-9a-f]{32}"),
    rule(SendgridKey, &["SG."], r"SG\.[\w-]{16,}\.[\w-]{16,}"),
    rule(
        ShopifyToken,
        &["shpat_", "shpca_", "shppa_", "shpss_", "shptka_", "shpua_"],
        r"shp(?:at|ca|pa|ss|tka|ua)_[A-Fa-f0-9]{28,}",
    ),
    rule(DigitaloceanToken, &["dop_v1_", "doo_v1_", "dor_v1_"], r"do[por]_v1_[a-f0-9]{40,}"),
    rule(DatabricksToken, &["dapi", "dkea", "dose"], r"(?:dapi|dkea|dose)[a-f0-9]{32}(?:-\d)?"),
    rule(CloudflareToken, &["v1.0-"], r"v1\.0-[a-f0-9]{20,}-[a-f0-9]{100,}"),
    rule(CloudflareToken, &["cfut_", "cfat_", "cfk_"], r"cf(?:ut|at|k)_[\w-]{30,}"),
    rule(MailKey, &["key-"], r"key-[0-9a-f]{32}"),
    rule(MailKey, &["re_"], r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,}"),
    rule(MailKey, &["xkeysib-", "xsmtpsib-"], r"x(?:key|smtp)sib-[a-f0-9]{40,}-[A-Za-z0-9]{12,}"),
    rule(MailKey, &["mlsn."], r"mlsn\.[a-f0-9]{40,}"),
    rule(MonitoringToken, &["NRAK-", "NRJS-", "NRII-", "NRRA-"], r"NR(?:AK|JS|II|RA)-[\w-]{18,}"),
    rule(MonitoringToken, &["sntrys_", "sntryu_", "sntrya_"], r"sntry[sua]_[\w+/=-]{32,}"),
    rule(MonitoringToken, &["phx_"], r"phx_[A-Za-z0-9]{36,}"),
    rule(GrafanaToken, &["glsa_", "glc_", "eyJrIjoi"], r"(?:glsa_|glc_|eyJrIjoi)[\w+/=-]{30,}"),
    rule(HashicorpToken, &["hvs.", "hvb.", "hvr."], r"hv[sbr]\.[\w-]{22,}"),
    rule(AtlassianToken, &["ATATT", "ATCTT", "ATBB"], r"AT(?:ATT|CTT|BB)[\w=-]{20,}"),
    rule(DeveloperToken, &["PMAK-"], r"PMAK-[a-f0-9]{20,}-[a-f0-9]{30,}"),
    rule(DeveloperToken, &["lin_api_", "lin_oauth_"], r"lin_(?:api|oauth)_[A-Za-z0-9]{30,}"),
    rule(DeveloperToken, &["ntn_", "secret_"], r"(?:ntn|secret)_[A-Za-z0-9]{40,}"),
    rule(DeveloperToken, &["figd_", "figu_"], r"fig[du]_[\w-]{30,}"),
    rule(DeveloperToken, &["rubygems_"], r"rubygems_[a-f0-9]{40,}"),
    rule(DeveloperToken, &["cio"], r"cio[A-Za-z0-9]{32}"),
    rule(DeveloperToken, &["oy2"], r"oy2[a-z0-9]{43}"),
    rule(DeveloperToken, &["CLOJARS_"], r"CLOJARS_[a-f0-9]{40,}"),
    rule(DeveloperToken, &["squ_", "sqp_", "sqa_"], r"sq[upa]_[a-f0-9]{40}"),
    rule(DeveloperToken, &["CCIPAT_", "CCIPRJ_"], r"CCIP(?:AT|RJ)_[\w-]{30,}"),
    rule(DeveloperToken, &["bkua_"], r"bkua_[a-f0-9]{40}"),
    rule(DeveloperToken, &["sgp_"], r"sgp_(?:[\w]{16}_|local_)?[a-f0-9]{40}"),
    rule(DeveloperToken, &["AKCp"], r"AKCp[A-Za-z0-9]{60,}"),
    rule(
        DeveloperToken,
        &["dp.pt.", "dp.st.", "dp.ct.", "dp.sa.", "dp.scim.", "dp.audit."],
        r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{36,}",
    ),
    rule(DeveloperToken, &["ops_eyJ"], r"ops_eyJ[\w+/=-]{60,}"),
    rule(DeveloperToken, &["CFPAT-", "tfp_", "pnu_", "aio_"], r"(?:CFPAT-|tfp_|pnu_|aio_)[\w-]{28,}"),
    rule(DeveloperToken, &["pat"], r"pat[A-Za-z0-9]{14}\.[a-f0-9]{40,}"),
    rule(CloudToken, &["HRKU-"], r"HRKU-[\w-]{32,}"),
    rule(CloudToken, &["pul-"], r"pul-[a-f0-9]{40}"),
    rule(CloudToken, &["pscale_"], r"pscale_(?:tkn|pw|oauth)_[\w=.-]{30,}"),
    rule(CloudToken, &["sbp_", "sb_secret_"], r"(?:sbp_[a-f0-9]{40}|sb_secret_[\w-]{20,})"),
    rule(CloudToken, &["fm2_", "fm1r_", "fo1_"], r"f(?:m2|m1r|o1)_[\w+/=,-]{40,}"),
    rule(CloudToken, &["tskey-"], r"tskey-[a-z]+-[\w-]{16,}"),
    rule(
        CloudToken,
        &["nfp_", "rnd_", "napi_", "vcp_", "vca_"],
        r"(?:nfp|rnd|napi|vcp|vca)_[A-Za-z0-9]{28,}",
    ),
    rule(CloudToken, &["LTAI"], r"LTAI[A-Za-z0-9]{12,26}"),
    rule(CloudToken, &["AKID"], r"AKID[A-Za-z0-9]{28,40}"),
    rule(
        CloudToken,
        &["AQVN", "y0_", "t1."],
        r"(?:AQVN[\w-]{35,}|y0_[\w-]{50,}|t1\.[A-Za-z0-9][\w-]{80,}={0,2})",
    ),
    rule(CloudToken, &["ocid1.credential.", "sl."], r"(?:ocid1\.credential\.[\w.-]{40,}|sl\.[\w-]{100,})"),
    rule(AiServiceKey, &["gsk_"], r"gsk_[A-Za-z0-9]{40,}"),
    rule(
        AiServiceKey,
        &["xai-", "pplx-", "csk-", "tvly-", "nvapi-", "jina_", "hyp_"],
        r"(?:xai-|pplx-|csk-|tvly-(?:dev-|prod-)?|nvapi-|jina_|hyp_)[\w-]{30,}",
    ),
    rule(
        AiServiceKey,
        &["r8_", "fw_", "pa-", "fc-"],
        r"(?:r8_[A-Za-z0-9]{36,}|fw_[A-Za-z0-9]{22,}|pa-[\w-]{40,}|fc-[a-f0-9]{32})",
    ),
    rule(AiServiceKey, &["lsv2_"], r"lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{8,}"),
    rule(AiServiceKey, &["sk_"], r"sk_[a-f0-9]{48}"),
    rule(AiServiceKey, &["tgp_v1_", "wandb_v1_", "pcsk_"], r"(?:tgp_v1|wandb_v1|pcsk)_[\w-]{36,}"),
    rule(
        PaymentKey,
        &["sq0atp-", "sq0csp-", "sq0idp-", "EAAA"],
        r"(?:sq0(?:atp|csp|idp)-[\w-]{20,}|EAAA[\w-]{56,})",
    ),
    rule(PaymentKey, &["access_token$"], r"access_token\$(?:production|sandbox)\$[a-z0-9]{16}\$[a-f0-9]{32}"),
    rule(
        PaymentKey,
        &["rzp_live_", "rzp_test_", "FLWSECK", "shippo_live_", "shippo_test_"],
        r"(?:rzp_(?:live|test)_|FLWSECK(?:_TEST)?-|shippo_(?:live|test)_)[\w-]{14,}",
    ),
    rule(PaymentKey, &["EZAK", "EZTK"], r"EZ[AT]K[A-Za-z0-9]{50,}"),
    rule(MessagingToken, &["EAA"], r"EAA[A-Za-z0-9]{90,}"),
    rule(MessagingToken, &["AAAAAAAAAAAAAAAAAAAAA"], r"A{21,}[A-Za-z0-9%]{50,}"),
    rule(
        MessagingToken,
        &["syt_", "mat_", "mct_"],
        r"(?:syt_[A-Za-z0-9]+_[A-Za-z]{20}_[A-Za-z0-9]{6}|m[ac]t_[\w-]{30,})",
    ),
    rule(AzureStorageKey, &["AccountKey="], r"AccountKey=[A-Za-z0-9+/]{40,}={0,2}"),
    rule(AzureSecret, &["SharedAccessKey="], r"SharedAccessKey=[A-Za-z0-9+/]{40,}={0,2}"),
    rule(
        AgeKey,
        &["AGE-SECRET-KEY-", "AGE-PLUGIN-"],
        r"AGE-(?:SECRET-KEY-(?:PQ-)?1|PLUGIN-[A-Z0-9]+-1)[A-Z0-9]{40,}",
    ),
    rule(AgeKey, &["age-secret-key-"], r"age-secret-key-1[a-z0-9]{40,}"),
    rule(CryptoPrivateKey, &["xprv", "yprv", "zprv", "tprv"], r"[xyzt]prv[1-9A-HJ-NP-Za-km-z]{80,112}"),
    rule(CryptoPrivateKey, &["nsec1"], r"nsec1[a-z0-9]{58}"),
    rule(Jwt, &["eyJ"], r"eyJ[\w-]{8,}\.e[\w-]{6,}\.[\w-]{16,}(?:={1,2})?"),
    rule(Jwt, &["eyJ"], r"eyJ[\w-]{10,}\.[\w-]*\.[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"),
    rule(
        PasswordHash,
        &["$2a$", "$2b$", "$2y$", "$argon2"],
        r"\$(?:2[aby]\$\d\d\$[./A-Za-z0-9]{53}|argon2(?:id|i|d)\$[\w=,$+/.-]{40,})",
    ),
    rule(
        PasswordHash,
        &["$1$", "$5$", "$6$", "$y$"],
        r"\$[156y]\$(?:rounds=\d+\$)?[./A-Za-z0-9$]{1,40}\$[./A-Za-z0-9]{22,}",
    ),
];

static COMPILED: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
    let build =
        |rule: &Rule| RegexBuilder::new(&format!("^(?:{})", rule.pattern)).unicode(false).build().ok();
    RULES.iter().map(build).collect()
});

/// The anchors, each with the rule it wakes.
pub(super) fn anchors() -> impl Iterator<Item = (&'static str, usize)> {
    RULES.iter().enumerate().flat_map(|(at, rule)| rule.anchors.iter().map(move |anchor| (*anchor, at)))
}

/// The patterns that do not compile; for a test.
#[cfg(test)]
pub(super) fn bad() -> Vec<&'static str> {
    let pairs = RULES.iter().zip(COMPILED.iter());
    pairs.filter(|(_, regex)| regex.is_none()).map(|(rule, _)| rule.pattern).collect()
}

/// Looks at the token that may begin at `start`.
pub(super) fn at(scan: &mut Scan<'_>, index: usize, start: usize) {
    let (Some(rule), Some(Some(regex))) = (RULES.get(index), COMPILED.get(index)) else { return };
    // Inside what this rule has just read, it would only read the same again.
    let seen = scan.token_seen.0 == index && start < scan.token_seen.1;
    if seen || !scan.begins(start) {
        return;
    }
    let Some(anchor) = rule.anchors.iter().copied().min_by_key(|anchor| anchor.len()) else { return };
    // Most anchors in plain text are no token: what follows them shows it at once.
    let near = scan.window(start, 24);
    if near.bytes().take_while(|b| b.is_ascii_graphic()).count() < anchor.len() + 10 {
        return;
    }
    let window = scan.window(start, REACH);
    if let Some(len) = regex.find(window).map(|found| found.len()) {
        scan.token_seen = (index, start + len);
        accept(scan, rule, anchor, start, window.get(..len).unwrap_or_default());
    } else if let Some((whole, ends)) = joined(window) {
        let len = regex.find(&whole).map(|found| found.len()).filter(|len| *len > 0);
        let end = len.and_then(|len| ends.get(len - 1)).copied();
        if let (Some(len), Some(end)) = (len, end)
            && value::is_body(whole.get(anchor.len()..len).unwrap_or_default())
        {
            scan.push(start, start + end, rule.kind, Rank::Form);
        }
    }
}

fn accept(scan: &mut Scan<'_>, rule: &Rule, anchor: &str, start: usize, token: &str) {
    let token = token.trim_end_matches(['.', '-', ',']);
    let body = token.get(anchor.len()..).unwrap_or_default();
    let end = start + token.len();
    if !value::is_body(body) || !scan.ends(end) {
        return;
    }
    // Of `AccountKey=…` only the value is secret.
    let named = token.find('=').filter(|at| *at + 1 == anchor.len()).map_or(0, |at| at + 1);
    scan.push(start + named, end, rule.kind, Rank::Form);
    if rule.kind == AwsAccessKey {
        aws_secret(scan, end);
    }
}

/// The secret key often stands next to the key id, without a word to announce it.
fn aws_secret(scan: &mut Scan<'_>, from: usize) {
    static SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| {
        super::scan::compile(r"(?:^|[^A-Za-z0-9/+=])([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)")
    });
    let window = scan.window(from, 160);
    let Some(regex) = SECRET.as_ref() else { return };
    for found in regex.captures_iter(window).filter_map(|c| c.get(1)) {
        let shape = value::shape(found.as_str());
        if shape.upper > 2 && shape.lower > 2 && value::is_random(found.as_str()) {
            scan.push(from + found.start(), from + found.end(), AwsSecretKey, Rank::Form);
        }
    }
}

/// A token that source code splits: `"abc" + "def"` read as one, with where each of its bytes ends in the
/// text.
fn joined(window: &str) -> Option<(String, Vec<usize>)> {
    static JOINT: LazyLock<Option<Regex>> = LazyLock::new(|| {
        super::scan::compile(concat!(
            r#"^(?:["'`][ \t]*(?:[+.&]|\.\.|\|\|)?[ \t]*\\?\r?\n?[ \t]*(?:[+.&]|\.\.|\|\|)?[ \t]*["'`]|"#,
            r#"\\\r?\n[ \t]*)"#,
        ))
    });
    let joint = JOINT.as_ref()?;
    let body =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'/' | b'=' | b'$');
    let (mut whole, mut ends, mut at, mut joints) = (String::new(), Vec::new(), 0_usize, 0_usize);
    while whole.len() < 400 && joints < 12 {
        match window.as_bytes().get(at) {
            Some(byte) if body(*byte) => {
                whole.push(char::from(*byte));
                at += 1;
                ends.push(at);
            }
            _ => {
                let Some(gap) = window.get(at..).and_then(|rest| joint.find(rest)) else { break };
                at += gap.len();
                joints += 1;
            }
        }
    }
    (joints > 0).then_some((whole, ends))
}
