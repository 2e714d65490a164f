use super::*;
use crate::memory::text::Analyzer;

const PLAIN: Bm25 = Bm25 { k1: 1.2, b: 0.75 };

fn counts(analyzer: &mut Analyzer, text: &str) -> Counts {
    let mut terms = Vec::new();
    analyzer.terms(text, |term| terms.push(term));
    Counts::of(terms)
}

fn weighted(analyzer: &mut Analyzer, query: &str) -> Vec<Asked> {
    analyzer.query_terms(query).into_iter().map(Asked::from).collect()
}

fn texts() -> Vec<String> {
    // Words of different frequency and texts of different length, without randomness.
    (0..500_u32)
        .map(|n| {
            let words = ["kettle", "garden", "rust", "piano", "river", "candle", "violet", "engine"];
            (0..3 + n % 90)
                .map(|k| words[((n * 7 + k * k) % (2 + (n + k) % 7)) as usize])
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

/// BM25 as its formula says, over the texts themselves.
fn by_formula(texts: &[String], query: &str, Bm25 { k1, b }: Bm25) -> Vec<f32> {
    let mut analyzer = Analyzer::default();
    let docs: Vec<Vec<Term>> = texts
        .iter()
        .map(|text| {
            let mut terms = Vec::new();
            analyzer.terms(text, |term| terms.push(term));
            terms
        })
        .collect();
    let average = docs.iter().map(Vec::len).sum::<usize>() as f32 / docs.len() as f32;
    let mut scores = vec![0.0; docs.len()];
    for term in analyzer.query_terms(query) {
        let frequency = docs.iter().filter(|doc| doc.contains(&term)).count() as f32;
        let idf = (1.0 + (docs.len() as f32 - frequency + 0.5) / (frequency + 0.5)).ln();
        for (score, doc) in scores.iter_mut().zip(&docs) {
            let count = doc.iter().filter(|other| **other == term).count() as f32;
            *score += idf * count * (k1 + 1.0) / (count + k1 * (1.0 - b + b * doc.len() as f32 / average));
        }
    }
    scores
}

/// The scores of all units.
fn scores(lexicon: &Lexicon, terms: &[Asked]) -> Vec<f32> {
    let mut scores = vec![0.0; lexicon.units() as usize];
    lexicon.rank(terms, PLAIN, |found| {
        found.iter().for_each(|(unit, score)| scores[*unit as usize] = *score);
        0.0
    });
    scores
}

fn assert_close(lexicon: &Lexicon, texts: &[String], query: &str) {
    let scores = scores(lexicon, &weighted(&mut Analyzer::default(), query));
    for (unit, (got, wanted)) in scores.iter().zip(by_formula(texts, query, PLAIN)).enumerate() {
        assert!((got - wanted).abs() <= 0.02 * wanted.max(0.1), "unit {unit}: {got} instead of {wanted}");
    }
}

#[test]
fn scores_follow_the_formula_before_during_and_after_a_merge() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("words.lex");
    let mut analyzer = Analyzer::default();
    let texts = texts();
    let mut lexicon = Lexicon::default();
    for (unit, text) in (0_u32..).zip(&texts) {
        if unit == 200 || unit == 350 {
            let (base, tail) = lexicon.freeze().unwrap();
            assert!(lexicon.freeze().is_none());
            assert_close(&lexicon, &texts[..unit as usize], "rusty kettles in the river");
            lexicon.thaw(merge(&path, base.as_deref(), &tail).unwrap());
            assert_eq!((lexicon.merged(), lexicon.unmerged()), (unit, 0));
        }
        lexicon.push(unit, &counts(&mut analyzer, text));
    }
    assert_close(&lexicon, &texts, "rusty kettles in the river");
    assert_close(&lexicon, &texts, "violet");
    assert_close(&lexicon, &texts, "nothing of this is there");
    let (base, tail) = lexicon.freeze().unwrap();
    drop(merge(&path, base.as_deref(), &tail).unwrap());
    let again = Lexicon::with_segment(Some(Segment::open(&path).unwrap()));
    assert_eq!(again.units(), 500);
    assert_close(&again, &texts, "an engine, and violet candles");
}

#[test]
fn kin_count_as_a_share_of_the_term() {
    let mut analyzer = Analyzer::default();
    let mut lexicon = Lexicon::default();
    for (unit, text) in
        (0_u32..).zip(["doctor physician", "physician physician", "river garden", "doctor doctor"])
    {
        lexicon.push(unit, &counts(&mut analyzer, text));
    }
    let term = analyzer.query_terms("doctor")[0];
    let kin = vec![(analyzer.query_terms("physician")[0], 0.5)];
    let scores = scores(&lexicon, &[Asked { term, kin }]);
    // Two of four units hold each of the two; all have two words, so that the length norm is k1.
    let score = |count: f32| (1.0 + 2.5_f32 / 2.5).ln() * count * 2.2 / (count + 1.2);
    for (got, wanted) in scores.iter().zip([score(1.5), score(1.0), 0.0, score(2.0)]) {
        assert!((got - wanted).abs() < 1e-5, "{scores:?}");
    }
}

#[test]
fn a_term_is_as_rare_as_it_and_its_kin_are() {
    let mut analyzer = Analyzer::default();
    let mut lexicon = Lexicon::default();
    for (unit, text) in
        (0_u32..).zip(["doctor", "physician", "physician", "physician", "medic", "river", "garden", "kettle"])
    {
        lexicon.push(unit, &counts(&mut analyzer, text));
    }
    let mut term = |word: &str| analyzer.query_terms(word)[0];
    let kin = vec![(term("physician"), 0.5), (term("healer"), 0.9)];
    let doctor = Asked { term: term("doctor"), kin: kin.clone() };
    let surgeon = Asked { term: term("surgeon"), kin };
    let idf = |frequency: f32| (1.0 + (8.0 - frequency + 0.5) / (frequency + 0.5)).ln();
    let tf = |count: f32| count * 2.2 / (count + 1.2);
    let scores = |asked: Asked| scores(&lexicon, &[asked]);
    // Nobody is called a healer here, so that it says nothing about how rare doctors are.
    let both = (idf(1.0) + 0.5 * idf(3.0)) / 1.5;
    let found = scores(doctor);
    assert!((found[0] - both * tf(1.0)).abs() < 1e-5, "{found:?}");
    assert!((found[1] - both * tf(0.5)).abs() < 1e-5, "{found:?}");
    // No text has the word, but some have its kin.
    let found = scores(surgeon);
    assert!(found[0] == 0.0 && (found[1] - idf(3.0) * tf(0.5)).abs() < 1e-5, "{found:?}");
}

#[test]
fn with_a_floor_the_same_are_best() {
    // Words as often as they are in texts, in more units than a block has.
    let word = |unit: u64, rank: u64| {
        let draw = (unit * 31 + rank).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        draw.is_multiple_of(rank * rank / 2 + 2)
    };
    let mut lexicon = Lexicon::default();
    for unit in 0..40_000_u32 {
        let terms = (0..40_u64).filter(|rank| word(u64::from(unit), *rank));
        lexicon.push(
            unit,
            &Counts::of(terms.flat_map(|rank| std::iter::repeat_n(rank, 1 + rank as usize % 3)).collect()),
        );
    }
    let kin = vec![(2, 0.8), (11, 0.3), (99, 0.9), (35, 0.5)];
    for terms in [
        vec![Asked { term: 30, kin }, Asked::from(0), Asked::from(1), Asked { term: 7, kin: vec![(3, 0.2)] }],
        (0..40).map(Asked::from).collect(),
        vec![Asked::from(0)],
        vec![Asked::from(98)],
    ] {
        let all = scores(&lexicon, &terms);
        for most in [1, 10, 200] {
            let mut best: Vec<(u32, f32)> = Vec::new();
            let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
            lexicon.rank(&terms, PLAIN, |found| {
                best.extend(found);
                best.sort_by(order);
                best.truncate(most);
                best.get(most - 1).map_or(0.0, |(_, score)| *score)
            });
            let mut wanted: Vec<(u32, f32)> = (0..)
                .zip(&all)
                .filter(|(_, score)| **score > 0.0)
                .map(|(unit, score)| (unit, *score))
                .collect();
            wanted.sort_by(order);
            wanted.truncate(most);
            assert_eq!(best, wanted, "{most} of {terms:?}");
        }
    }
}

#[test]
fn every_damaged_byte_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("words.lex");
    let mut tail = Tail::default();
    let mut analyzer = Analyzer::default();
    for (unit, text) in (0..).zip(["the kettle", "a red kettle", "nothing"]) {
        tail.push(unit, &counts(&mut analyzer, text));
    }
    drop(merge(&path, None, &tail).unwrap());
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let opened = Segment::open(&path);
        // The numbers of units and tokens are outside the checksum; every other byte is covered.
        assert!(opened.is_err() || (8..24).contains(&at), "byte {at}");
    }
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(Segment::open(&path).is_err(), "{length} bytes");
    }
}

#[test]
fn lengths_survive_their_code() {
    for length in 0..100_000_u32 {
        let back = decode_length(length_code(length));
        assert!((back - length as f32).abs() <= 0.025 * length as f32, "{length} became {back}");
    }
}
