//! Models and machines, as people have them.

use super::super::{
    number::{Random, whole},
    trace::{Machine, Model},
};

/// A model and its name, the most popular first. The names are nobody's.
pub(super) struct Kind {
    name: &'static str,
    parameters: u64,
}

const fn kind(name: &'static str, parameters: u64) -> Kind {
    Kind { name, parameters }
}

/// The models.
pub(super) const MODELS: [Kind; 8] = [
    kind("guide-8b", 8_000),
    kind("guide-4b", 4_000),
    kind("scribe-8b", 8_000),
    kind("guide-3b", 3_000),
    kind("guide-14b", 14_000),
    kind("guide-1b", 1_000),
    kind("guide-32b", 32_000),
    kind("guide-70b", 70_000),
];

impl Kind {
    pub(super) fn model(&self) -> Model {
        Model { name: self.name.into(), parameters: self.parameters, bits: 4_500 }
    }
}

/// What machines of a class are like. Speeds are thousandths of a token per second with 1,000 million parameters.
struct Class {
    name: &'static str,
    /// How many of a hundred machines are such.
    share: u64,
    prefill: u64,
    decode: u64,
    slots: u32,
    crowding: u32,
    kv_tokens: u64,
    context: u64,
    /// Parameters of the largest model that fits, in millions.
    room: u64,
    resident: u32,
    load_us: u64,
}

const CLASSES: [Class; 6] = [
    Class {
        name: "cpu-4",
        share: 30,
        prefill: 150_000,
        decode: 24_000,
        slots: 2,
        crowding: 750_000,
        kv_tokens: 16_384,
        context: 8_192,
        room: 4_000,
        resident: 1,
        load_us: 1_500_000,
    },
    Class {
        name: "cpu-8",
        share: 35,
        prefill: 400_000,
        decode: 55_000,
        slots: 3,
        crowding: 650_000,
        kv_tokens: 24_576,
        context: 8_192,
        room: 8_000,
        resident: 1,
        load_us: 1_000_000,
    },
    Class {
        name: "laptop",
        share: 20,
        prefill: 2_500_000,
        decode: 150_000,
        slots: 4,
        crowding: 450_000,
        kv_tokens: 49_152,
        context: 16_384,
        room: 14_000,
        resident: 2,
        load_us: 500_000,
    },
    Class {
        name: "gpu-12g",
        share: 10,
        prefill: 14_000_000,
        decode: 400_000,
        slots: 6,
        crowding: 130_000,
        kv_tokens: 49_152,
        context: 16_384,
        room: 14_000,
        resident: 1,
        load_us: 400_000,
    },
    Class {
        name: "gpu-24g",
        share: 4,
        prefill: 30_000_000,
        decode: 900_000,
        slots: 8,
        crowding: 100_000,
        kv_tokens: 98_304,
        context: 32_768,
        room: 32_000,
        resident: 2,
        load_us: 300_000,
    },
    Class {
        name: "gpu-80g",
        share: 1,
        prefill: 80_000_000,
        decode: 2_000_000,
        slots: 16,
        crowding: 60_000,
        kv_tokens: 262_144,
        context: 32_768,
        room: 70_000,
        resident: 3,
        load_us: 200_000,
    },
];

/// A machine of some class, a fifth faster or slower than others of it.
pub(super) fn machine(random: &mut Random) -> Machine {
    let mut lot = random.below(CLASSES.iter().map(|class| class.share).sum());
    let [first, ..] = &CLASSES;
    let class = CLASSES.iter().find(|class| {
        let found = lot < class.share;
        lot = lot.saturating_sub(class.share);
        found
    });
    let class = class.unwrap_or(first);
    let factor = 0.8 + 0.4 * random.unit();
    let around = |speed: u64| whole(speed as f64 * factor);
    let claims = match random.below(100) {
        // Some boast.
        0..3 => 3_000_000,
        3..8 => 1_500_000,
        _ => u32::try_from(950_000 + random.below(100_000)).unwrap_or(1_000_000),
    };
    let side = |random: &mut Random| u32::try_from(random.below(60_000)).unwrap_or(0);
    Machine {
        class: class.name.into(),
        prefill: around(class.prefill),
        decode: around(class.decode),
        claims,
        slots: class.slots,
        crowding: class.crowding,
        kv_tokens: class.kv_tokens,
        context: class.context,
        resident: class.resident,
        load_us: class.load_us,
        models: models(class, random),
        place: [side(random), side(random)],
        access_us: u32::try_from(random.log_normal(6_000.0, 0.6, 300, 80_000)).unwrap_or(0),
        walled: random.happens(300_000),
        faults: if random.happens(20_000) { 100_000 } else { 1_000 },
        stake: 1_000_000 * random.below(100),
        audits_passed: u32::try_from(random.below(200)).unwrap_or(0),
        audits_failed: u32::from(random.happens(30_000)),
        away: Vec::new(),
    }
}

/// One to four models that fit; of what fits, popular ones and large ones are taken rather than others.
fn models(class: &Class, random: &mut Random) -> Vec<u32> {
    let wanted = 1 + random.below(4);
    let mut models = Vec::new();
    for _ in 0..wanted {
        let weight = |(place, kind): (u64, &Kind)| {
            if kind.parameters > class.room { 0 } else { kind.parameters / (place + 2) + 100 }
        };
        let weights: Vec<u64> = (0..).zip(&MODELS).map(weight).collect();
        let mut lot = random.below(weights.iter().sum());
        for (number, weight) in (0..).zip(&weights) {
            if lot < *weight {
                if !models.contains(&number) {
                    models.push(number);
                }
                break;
            }
            lot -= weight;
        }
    }
    models
}
