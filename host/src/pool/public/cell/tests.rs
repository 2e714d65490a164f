use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    time::Instant,
};

use super::*;

fn keys() -> (Keys, Keys) {
    let (a, b) = (Zeroizing::new([1; 32]), Zeroizing::new([2; 32]));
    (Keys { send: a.clone(), receive: b.clone() }, Keys { send: b, receive: a })
}

/// The cells on the wire for writes of the given data, each flushed.
async fn wire(writes: &[&[u8]], end: bool) -> Vec<u8> {
    let (ours, mut theirs) = duplex(1 << 22);
    let mut cells = Cells::new(ours, &keys().0);
    for data in writes {
        cells.write_all(data).await.unwrap();
        cells.flush().await.unwrap();
    }
    if end {
        cells.shutdown().await.unwrap();
    }
    drop(cells);
    let mut bytes = Vec::new();
    theirs.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn read(wire: &[u8]) -> (Vec<u8>, Option<CellError>) {
    let mut cells = Cells::new(tokio::io::join(wire, tokio::io::sink()), &keys().1);
    let mut out = Vec::new();
    let error = cells.read_to_end(&mut out).await.err();
    (out, error.map(|error| reason(&error).expect("a typed reason")))
}

#[tokio::test]
async fn cells_are_of_one_size_and_writes_fill_them() {
    for (length, cells) in [(0, 1), (1, 2), (DATA, 2), (DATA + 1, 3), (10 * DATA, 11)] {
        let data = vec![7; length];
        let bytes = wire(&[&data], true).await;
        assert_eq!(bytes.len(), cells * CELL, "{length} bytes");
        assert_eq!(read(&bytes).await, (data, None));
    }
    // Small writes between flushes share a cell.
    let (ours, mut theirs) = duplex(1 << 16);
    let mut cells = Cells::new(ours, &keys().0);
    for _ in 0..100 {
        cells.write_all(b"word ").await.unwrap();
    }
    cells.shutdown().await.unwrap();
    drop(cells);
    let mut bytes = Vec::new();
    theirs.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes.len(), CELL);
}

#[tokio::test]
async fn a_changed_dropped_moved_repeated_or_missing_cell_ends_the_stream_with_its_number() {
    let words: Vec<Vec<u8>> = (0..8_u8).map(|n| vec![n; 100]).collect();
    let writes: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let bytes = wire(&writes, true).await;
    let cells: Vec<&[u8]> = bytes.chunks(CELL).collect();
    assert_eq!(cells.len(), 9);
    let before = |n: usize| words[..n].concat();

    for place in [0, 3, 500, 1_000, 1_023] {
        let mut changed = bytes.clone();
        changed[3 * CELL + place] ^= 1;
        assert_eq!(read(&changed).await, (before(3), Some(CellError::Altered { cell: 3 })));
    }
    let dropped = [&cells[..2], &cells[3..]].concat().concat();
    assert_eq!(read(&dropped).await, (before(2), Some(CellError::Altered { cell: 2 })));
    let swapped = [&cells[..4], &[cells[5], cells[4]], &cells[6..]].concat().concat();
    assert_eq!(read(&swapped).await, (before(4), Some(CellError::Altered { cell: 4 })));
    let repeated = [&cells[..5], &cells[4..]].concat().concat();
    assert_eq!(read(&repeated).await, (before(5), Some(CellError::Altered { cell: 5 })));
    assert_eq!(read(&cells[..8].concat()).await, (before(8), Some(CellError::Truncated { cell: 8 })));
    assert_eq!(read(&bytes[..5 * CELL + 17]).await, (before(5), Some(CellError::Truncated { cell: 5 })));
    assert_eq!(read(&[]).await, (vec![], Some(CellError::Truncated { cell: 0 })));
    // What comes after the end is nobody's.
    assert_eq!(read(&[bytes.as_slice(), &[9; 3]].concat()).await, (before(8), None));
}

#[tokio::test]
async fn an_error_stays_and_the_other_direction_has_another_key() {
    let bytes = wire(&[b"x"], true).await;
    let mut echoed = Cells::new(tokio::io::join(bytes.as_slice(), tokio::io::sink()), &keys().0);
    for _ in 0..2 {
        let error = echoed.read_u8().await.unwrap_err();
        assert_eq!(reason(&error), Some(CellError::Altered { cell: 0 }), "a relay returns our own cell");
    }
}

#[tokio::test]
async fn what_is_sealed_but_no_valid_content_is_told_apart() {
    let half = || Half::new(&[1; 32]);
    let plain = |kind: u8, length: u16, byte: u8| {
        let mut cell = vec![0; CELL - TAG];
        cell[0] = kind;
        cell[1..3].copy_from_slice(&length.to_be_bytes());
        cell[900] = byte;
        cell
    };
    for plain in [plain(2, 1, 0), plain(0, 1_006, 0), plain(0, u16::MAX, 0), plain(0, 5, 1), plain(0, 0, 0)] {
        let sealed = half().raw(plain);
        assert_eq!(read(&sealed).await, (vec![], Some(CellError::Malformed { cell: 0 })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_paced_stream_sends_one_cell_per_tick_and_loses_nothing() {
    let (ours, mut theirs) = duplex(1 << 20);
    let (a, b) = keys();
    let began = Instant::now();
    let mut out = paced(Cells::new(ours, &a), TICK);
    let writer = tokio::spawn(async move {
        for n in 0..40_u64 {
            // Tokens at uneven times: 3 to 13 ms apart.
            tokio::time::sleep(Duration::from_millis(3 + n * 7 % 11)).await;
            out.write_all(b"token ").await.unwrap();
            out.flush().await.unwrap();
        }
        out.write_all(&[7; 3 * DATA]).await.unwrap();
        out.shutdown().await.unwrap();
        out
    });
    let (mut bytes, mut times) = (Vec::new(), Vec::new());
    let mut cell = [0; CELL];
    while theirs.read_exact(&mut cell).await.is_ok() {
        bytes.extend(cell);
        times.push(began.elapsed());
    }
    drop(writer.await.unwrap());
    let mut said = b"token ".repeat(40);
    said.extend([7; 3 * DATA]);
    assert_eq!(Cells::new(tokio::io::join(bytes.as_slice(), tokio::io::sink()), &b).read_all().await, said);
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= TICK - Duration::from_millis(1), "{times:?}");
    }
    let off = |at: &Duration| at.as_micros() % TICK.as_micros();
    assert!(times.iter().all(|at| off(at) <= 2_000), "off the grid: {times:?}");
    assert!(times.len() < 40, "tokens of one tick share a cell: {}", times.len());
}

#[tokio::test]
async fn a_paced_stream_that_is_dropped_or_breaks_says_so() {
    let (ours, theirs) = duplex(1 << 16);
    let (a, b) = keys();
    let mut out = paced(Cells::new(ours, &a), TICK);
    out.write_all(b"never sent").await.unwrap();
    drop(out);
    let error = Cells::new(theirs, &b).read_u8().await.unwrap_err();
    assert_eq!(reason(&error), Some(CellError::Truncated { cell: 0 }));

    let (ours, theirs) = duplex(1 << 16);
    let mut out = paced(Cells::new(ours, &a), TICK);
    drop(theirs);
    let broke = async {
        loop {
            if let Err(error) = out.write_all(&[0; 4096]).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(5), broke).await.unwrap();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

impl<S: AsyncRead + Unpin> Cells<S> {
    async fn read_all(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.read_to_end(&mut out).await.unwrap();
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_writes_come_back_as_they_were(writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3_000), 0..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pieces: Vec<&[u8]> = writes.iter().map(Vec::as_slice).collect();
        let (out, error) = runtime.block_on(async { read(&wire(&pieces, true).await).await });
        prop_assert_eq!(out, writes.concat());
        prop_assert_eq!(error, None);
    }

    #[test]
    fn noise_never_opens(noise in prop::collection::vec(any::<u8>(), 0..3_000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (out, error) = runtime.block_on(read(&noise));
        prop_assert!(out.is_empty() && error.is_some());
    }
}
