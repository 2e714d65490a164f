//! What relay and cells cost over a direct stream on the same machine.

use std::time::Instant;

use super::{swarms::Three, *};

const ECHO: &str = "/potluck/test-echo/1";
const BYTES: usize = if cfg!(debug_assertions) { 2 << 20 } else { 32 << 20 };

/// Seconds to send [`BYTES`] and get them back at the same time.
async fn flood(stream: Stream) -> f64 {
    let (mut from, mut to) = tokio::io::split(stream);
    let began = Instant::now();
    let sending = async {
        let block = vec![7; 256 << 10];
        for _ in 0..BYTES / block.len() {
            to.write_all(&block).await.unwrap();
        }
        to.flush().await.unwrap();
    };
    let reading = async {
        let (mut read, mut bytes) = (0, vec![0; 256 << 10]);
        while read < BYTES {
            read += from.read(&mut bytes).await.unwrap();
        }
    };
    tokio::join!(sending, reading);
    began.elapsed().as_secs_f64()
}

/// Round trips of a small message in microseconds: median and 95th percentile.
async fn ping(stream: &mut Stream) -> (u128, u128) {
    let mut times = Vec::new();
    for _ in 0..500 {
        let (began, mut back) = (Instant::now(), [0; 64]);
        stream.write_all(&[7; 64]).await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut back).await.unwrap();
        times.push(began.elapsed().as_micros());
    }
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 95 / 100])
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_and_cells_beside_a_direct_stream() {
    let three = Three::new().await;
    echo(three.provider.handle().bind(SEALED), Arc::clone(&three.keys));
    let mut direct = three.provider.handle().bind(ECHO);
    tokio::spawn(async move {
        while let Some(Inbound { stream, .. }) = direct.recv().await {
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
        }
    });
    let limits = Limits { rate: u32::MAX, circuit_rate: u32::MAX, ..Limits::default() };
    let handle = three.relay.handle();
    let incoming = handle.bind(RELAY);
    let _relay = Relay::bind(Arc::new(handle), incoming, Arc::new(Gratis(1 << 30)), limits);
    let mebibytes = (BYTES >> 20) as f64;
    for round in 1..=3 {
        // The relay has the connection with the provider, so a direct stream is one of its own.
        let mut stream = three.relay.handle().open(three.provider.me(), ECHO).await.unwrap();
        let direct_ping = ping(&mut stream).await;
        let direct = mebibytes / flood(stream).await;
        let mut stream = seal::open(three.dial().await.stream, &three.key).await.unwrap();
        let sealed_ping = ping(&mut stream).await;
        let sealed = mebibytes / flood(stream).await;
        println!(
            "round {round}: direct {direct:.1} MiB/s, round trip {} µs (95 %: {}); relay and cells {sealed:.1} MiB/s, \
             round trip {} µs (95 %: {})",
            direct_ping.0, direct_ping.1, sealed_ping.0, sealed_ping.1,
        );
        // Ciphers that are not optimised say nothing of what they cost.
        if !cfg!(debug_assertions) {
            assert!(sealed > direct / 50.0, "carrying cells costs more than it should");
            assert!(sealed_ping.0 < direct_ping.0 * 20 + 5_000);
        }
    }
}
