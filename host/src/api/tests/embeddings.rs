//! Vectors as both surfaces write them.

use super::*;
use crate::inference::Lane;

#[tokio::test]
async fn openais_embeddings_are_floats_or_base64() {
    let bench = local();
    let body = json!({"model": "m@local", "input": ["one", "three"], "user": "u", "dimensions": 3});
    let response = bench.post("/v1/embeddings", body).await;
    assert_eq!(response.headers()[MODE_HEADER], "local");
    assert_eq!(response.headers()[NODE_HEADER], "node-1");
    let (status, body) = whole(response).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((&body["object"], &body["model"]), (&json!("list"), &json!("m")));
    let item = json!({"object": "embedding", "index": 1, "embedding": [5.0, 3.0, 4.0]});
    assert_eq!(body["data"][1], item);
    assert_eq!(body["usage"], json!({"prompt_tokens": 10, "total_tokens": 10}));
    let body = json!({"model": "m", "input": "one", "encoding_format": "base64"});
    let (_, body) = bench.posted("/v1/embeddings", body).await;
    assert_eq!(body["data"][0]["embedding"], "AABAQAAAQEAAAIBA");
    let asked = bench.desk.embeds.lock().unwrap().clone();
    assert!(asked.iter().all(|request| request.lane == Lane::Interactive && !request.truncate));
}

#[tokio::test]
async fn large_requests_go_behind_small_ones() {
    let bench = local();
    let (status, _) = bench.posted("/v1/embeddings", json!({"model": "m", "input": vec!["x"; 2048]})).await;
    assert_eq!(status, 200);
    assert_eq!(bench.desk.embeds.lock().unwrap()[0].lane, Lane::Background);
}

#[tokio::test]
async fn openais_embeddings_name_the_field_at_fault() {
    let bench = local();
    for (body, status, param) in [
        (json!({"model": "absent", "input": "x"}), 404, "model"),
        (json!({"model": "long", "input": "x"}), 400, "input"),
        (json!({"model": "m"}), 400, "input"),
        (json!({"model": "m", "input": ""}), 400, "input"),
        (json!({"model": "m", "input": []}), 400, "input"),
        (json!({"model": "m", "input": ["x", ""]}), 400, "input"),
        (json!({"model": "m", "input": ["x", 1]}), 400, "input"),
        (json!({"model": "m", "input": [101, 102]}), 400, "input"),
        (json!({"model": "m", "input": [[101, 102]]}), 400, "input"),
        (json!({"model": "m", "input": vec!["x"; 2049]}), 400, "input"),
        (json!({"model": "m", "input": "x", "encoding_format": "int8"}), 400, "encoding_format"),
        (json!({"model": "m", "input": "x", "dimensions": 2}), 400, "dimensions"),
        (json!({"model": "m", "input": "x", "dimensions": 0}), 400, "dimensions"),
    ] {
        let (got, answer) = bench.posted("/v1/embeddings", body.clone()).await;
        assert_eq!(got, status, "{body}: {answer}");
        assert_eq!(answer["error"]["param"], param, "{body}: {answer}");
    }
    let (_, answer) = bench.posted("/v1/embeddings", json!({"model": "absent", "input": "x"})).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("potluck pull embedder"), "{message}");
    let (_, answer) = bench.posted("/v1/embeddings", json!({"model": "long", "input": "x"})).await;
    assert_eq!(answer["error"]["code"], "context_length_exceeded");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("300 tokens") && message.contains("truncate"), "{message}");
    let cut = json!({"model": "long", "input": "x", "truncate": true});
    assert_eq!(bench.posted("/v1/embeddings", cut).await.0, 200);
    let mode = bench.posted("/v1/embeddings", json!({"model": "m@trusted", "input": "x"})).await;
    assert_eq!(mode.0, 403, "{}", mode.1);
}

#[tokio::test]
async fn ollamas_embeddings_come_one_or_many() {
    let bench = local();
    let body = json!({"model": "m", "input": ["one", ""], "keep_alive": "5m", "options": {"num_ctx": 9}});
    let (status, body) = bench.posted("/api/embed", body).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["embeddings"], json!([[3.0, 3.0, 4.0], [0.0, 3.0, 4.0]]));
    assert_eq!((&body["model"], &body["prompt_eval_count"]), (&json!("m"), &json!(10)));
    assert_eq!(body["load_duration"], 1_000_000);
    assert!(body["total_duration"].is_u64());
    let asked = bench.desk.embeds.lock().unwrap().clone();
    assert!(asked[0].truncate && asked[0].keep_alive == Some(KeepAlive::For(Duration::from_secs(300))));
    let body = json!({"model": "m", "input": "four", "dimensions": 2});
    let (_, body) = bench.posted("/api/embed", body).await;
    assert_eq!(body["embeddings"], json!([[0.8, 0.6]]));
    let (_, body) = bench.posted("/api/embed", json!({"model": "m", "input": ""})).await;
    assert_eq!(body, json!({"model": "m", "embeddings": []}));
    let (_, body) = bench.posted("/api/embeddings", json!({"model": "m", "prompt": "four"})).await;
    assert_eq!(body, json!({"embedding": [4.0, 3.0, 4.0]}));
    let (_, body) = bench.posted("/api/embeddings", json!({"model": "m", "keep_alive": 0})).await;
    assert_eq!(body, json!({"embedding": []}));
}
