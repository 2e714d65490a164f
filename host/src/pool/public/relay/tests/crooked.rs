//! A relay that meddles with what it carries is found out at the first cell it touches.

use tokio::time::timeout;

use super::{swarms::Three, *};
use crate::pool::public::{
    cell::{self, CellError},
    relay::{
        dial::RelayError,
        frame::{CONTROL, Control, DATA},
    },
};

/// What it does to the cells of one direction: for each cell, those it sends instead.
type Meddle = fn(usize, Vec<u8>, &mut Vec<Vec<u8>>);

const UNTOUCHED: Meddle = |_, cell, out| out.push(cell);
/// The first cell it touches is the third, counted from zero; upward the first is the hello.
const TOUCHED: usize = 3;

const WAYS: [(&str, Meddle); 5] = [
    ("changes", |n, mut cell, out| {
        cell[700] ^= u8::from(n == TOUCHED);
        out.push(cell);
    }),
    ("drops", |n, cell, out| {
        if n != TOUCHED {
            out.push(cell);
        }
    }),
    ("repeats", |n, cell, out| {
        if n == TOUCHED {
            out.push(cell.clone());
        }
        out.push(cell);
    }),
    ("swaps", |n, cell, out| {
        // Keeps the third back until the fourth has left.
        thread_local!(static HELD: std::cell::RefCell<Option<Vec<u8>>> = const { std::cell::RefCell::new(None) });
        if n == TOUCHED {
            HELD.set(Some(cell));
        } else {
            out.push(cell);
            out.extend(HELD.take());
        }
    }),
    ("makes up", |n, cell, out| {
        if n == TOUCHED {
            out.push(vec![0; CELL]);
        }
        out.push(cell);
    }),
];

/// Relays one circuit, meddling.
async fn crooked(stream: Stream, streams: &dyn Streams, up: Meddle, down: Meddle) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut frame = vec![0; FRAME];
    from.read_exact(&mut frame).await?;
    let Some(Control::Open { provider, .. }) = Control::parse(&frame[1..]) else { panic!("no opening") };
    let (mut onward_from, mut onward_to) = tokio::io::split(streams.open(provider, SEALED).await.unwrap());
    let mut opened = Vec::new();
    Control::Opened { cells: 10_000 }.frame(&mut opened)?;
    to.write_all(&opened).await?;
    to.flush().await?;
    let upward = async {
        for n in 0.. {
            from.read_exact(&mut frame).await?;
            assert_ne!(frame[0], CONTROL);
            let mut out = Vec::new();
            up(n, frame[1..].to_vec(), &mut out);
            onward_to.write_all(&out.concat()).await?;
            onward_to.flush().await?;
        }
        io::Result::Ok(())
    };
    let downward = async {
        let mut cell = vec![0; CELL];
        for n in 0.. {
            onward_from.read_exact(&mut cell).await?;
            let mut out = Vec::new();
            down(n, cell.clone(), &mut out);
            for cell in out {
                to.write_all(&[&[DATA], cell.as_slice()].concat()).await?;
            }
            to.flush().await?;
        }
        io::Result::Ok(())
    };
    tokio::try_join!(upward, downward).map(|_| ())
}

/// Sends eight small messages, a cell each; those that arrive, and what ends the stream.
async fn messages(mut from: impl AsyncWrite + Unpin, mut to: impl AsyncRead + Unpin) -> (Vec<u8>, io::Error) {
    let sending = async {
        for n in 0..8_u8 {
            from.write_all(&[n; 50]).await?;
            from.flush().await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::future::pending::<io::Result<()>>().await
    };
    let reading = async {
        let (mut arrived, mut bytes) = (Vec::new(), [0; 50]);
        loop {
            match to.read_exact(&mut bytes).await {
                Ok(_) => arrived.push(bytes[0]),
                Err(error) => return (arrived, error),
            }
        }
    };
    tokio::select! {
        ended = timeout(Duration::from_secs(10), reading) => ended.expect("the stream ends in time"),
        sent = sending => panic!("{sent:?}"),
    }
}

#[tokio::test]
async fn a_relay_that_meddles_is_found_out_at_the_first_cell_it_touches() {
    let three = Three::new().await;
    let relay = three.relay.handle();
    let mut circuits = relay.bind(RELAY);
    let mut sealed = three.provider.handle().bind(SEALED);
    for (name, meddle) in WAYS {
        for upward in [true, false] {
            let (up, down) = if upward { (meddle, UNTOUCHED) } else { (UNTOUCHED, meddle) };
            let meddling = async {
                let inbound = circuits.recv().await.unwrap();
                let _ = crooked(inbound.stream, &relay, up, down).await;
            };
            let honest = async {
                let circuit = three.dial().await;
                let ours = seal::open(circuit.stream, &three.key).await.unwrap();
                let inbound = timeout(Duration::from_secs(10), sealed.recv()).await.unwrap().unwrap();
                let theirs = seal::accept(inbound.stream, &three.keys, None).await.unwrap();
                if upward { messages(ours, theirs).await } else { messages(theirs, ours).await }
            };
            let (arrived, error) = tokio::select! {
                () = meddling => panic!("{name}: the relay ended first"),
                ended = honest => ended,
            };
            // Upward the hello is cell zero for the relay. What is repeated was right the first time.
            let expected = TOUCHED as u64 - u64::from(upward) + u64::from(name == "repeats");
            let altered = CellError::Altered { cell: expected };
            assert_eq!(cell::reason(&error), Some(altered), "{name}, upward {upward}: {error}");
            assert_eq!(arrived, (0..expected as u8).collect::<Vec<_>>(), "{name}, upward {upward}");
            assert!(RelayError::of(&error).is_none());
        }
    }
}

#[tokio::test]
async fn a_relay_that_changes_or_replays_a_hello_gets_nothing() {
    let three = Three::new().await;
    let mut sealed = three.provider.handle().bind(SEALED);
    let relay = three.relay.handle();
    let mut hello = relay.bind(RELAY);
    let recording = async {
        let mut stream = hello.recv().await.unwrap().stream;
        let mut frame = vec![0; FRAME];
        stream.read_exact(&mut frame).await.unwrap();
        let mut opened = Vec::new();
        Control::Opened { cells: 10 }.frame(&mut opened).unwrap();
        stream.write_all(&opened).await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut frame).await.unwrap();
        frame[1..].to_vec()
    };
    let asking = async {
        let circuit = three.dial().await;
        seal::open(circuit.stream, &three.key).await.unwrap()
    };
    let (recorded, _stream) = tokio::join!(recording, asking);
    let mut changed = recorded.clone();
    changed[600] ^= 1;
    let mut accepted = Vec::new();
    for bytes in [changed, recorded.clone(), recorded] {
        let mut stream = relay.open(three.provider.me(), SEALED).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        let inbound = timeout(Duration::from_secs(10), sealed.recv()).await.unwrap().unwrap();
        accepted.push(seal::accept(inbound.stream, &three.keys, None).await.map(|_| ()));
    }
    use crate::pool::public::seal::SealError;
    assert!(matches!(accepted[0], Err(SealError::Altered)), "{accepted:?}");
    assert!(accepted[1].is_ok(), "{accepted:?}");
    assert!(matches!(accepted[2], Err(SealError::Replayed)), "{accepted:?}");
}
