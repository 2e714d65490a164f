//! One direction of a link, as arithmetic: what happens to a packet, and when it comes out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::random::Random;

/// What a link does to packets in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// From one end to the other.
    pub delay: Duration,
    /// At most so much more, evenly distributed. Packets never overtake each other.
    pub jitter: Duration,
    /// Part of the packets that is lost, 0 to 1.
    pub loss: f64,
    /// Bits of frames per second; `None`: as many as the machine carries.
    pub rate: Option<u64>,
    /// Bytes that wait for their turn under `rate`; what comes when it is full is lost.
    pub queue: usize,
    /// Whether nothing passes.
    pub down: bool,
}

impl Default for Shape {
    fn default() -> Self {
        let none = Duration::ZERO;
        Self { delay: none, jitter: none, loss: 0.0, rate: None, queue: 256 << 10, down: false }
    }
}

impl Shape {
    /// A link with nothing but this one-way delay.
    pub fn delay(milliseconds: u64) -> Self {
        Self { delay: Duration::from_millis(milliseconds), ..Self::default() }
    }

    /// A link with nothing but this rate in Mbit/s.
    pub fn rate(mbit: u64) -> Self {
        Self { rate: Some(mbit * 1_000_000), ..Self::default() }
    }

    /// Changes it as a line says: `delay MS`, `jitter MS`, `loss PART`, `rate MBIT` (0: no limit), `queue KIB`,
    /// `down` or `up`.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn tell(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let (word, value) = (words.next().unwrap_or_default(), words.next());
        if words.next().is_some() {
            return Err(format!("too many words in `{line}`"));
        }
        let number = || -> Result<f64, String> {
            let number: Option<f64> = value.and_then(|text| text.parse().ok());
            number.filter(|n| n.is_finite() && *n >= 0.0 && *n <= 1e9).ok_or_else(|| {
                format!("`{word}` needs a number from 0 on, not `{}`", value.unwrap_or_default())
            })
        };
        let duration = || number().map(|ms| Duration::from_secs_f64(ms / 1000.0));
        match (word, value) {
            ("delay", _) => self.delay = duration()?,
            ("jitter", _) => self.jitter = duration()?,
            ("loss", _) => match number()? {
                part if part <= 1.0 => self.loss = part,
                part => return Err(format!("`loss` is a part of 1, not {part}")),
            },
            ("rate", _) => {
                self.rate = Some(number()?).filter(|mbit| *mbit > 0.0).map(|mbit| (mbit * 1e6) as u64)
            }
            ("queue", _) => self.queue = (number()? * 1024.0) as usize,
            ("down", None) => self.down = true,
            ("up", None) => self.down = false,
            _ => {
                return Err(format!(
                    "`{line}` is none of: delay MS, jitter MS, loss PART, rate MBIT, queue KIB, down, up"
                ));
            }
        }
        Ok(())
    }
}

/// What happened to a packet that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Carried,
    Lost,
    /// It found the queue full.
    Overflowed,
}

/// Packets under way in one direction, in the order in which they come out.
#[derive(Debug)]
pub(super) struct Pipe {
    under_way: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// When the last packet that was let in has been sent whole at the link's rate.
    free: Option<Instant>,
    random: Random,
    spare: Vec<Vec<u8>>,
}

impl Pipe {
    /// Most bytes under way, whatever delay and rate say: 64 MiB.
    const MOST: usize = 64 << 20;
    /// Buffers that are kept for later packets.
    const SPARE: usize = 256;

    pub(super) fn new(seed: u64) -> Self {
        Self {
            under_way: VecDeque::new(),
            bytes: 0,
            free: None,
            random: Random::new(seed),
            spare: Vec::new(),
        }
    }

    /// Takes in a packet that came to the link at `now`.
    pub(super) fn offer(&mut self, packet: &[u8], shape: &Shape, now: Instant) -> Fate {
        if shape.down || self.unit() < shape.loss {
            return Fate::Lost;
        }
        let mut sent = now;
        if let Some(rate) = shape.rate {
            let start = self.free.map_or(now, |free| free.max(now));
            let waiting = (start - now).as_secs_f64() * rate as f64 / 8.0;
            if waiting + packet.len() as f64 > shape.queue as f64 {
                return Fate::Overflowed;
            }
            sent = start + Duration::from_secs_f64(packet.len() as f64 * 8.0 / rate as f64);
            self.free = Some(sent);
        }
        if self.bytes + packet.len() > Self::MOST {
            return Fate::Overflowed;
        }
        let due = sent + shape.delay + shape.jitter.mul_f64(self.unit());
        let due = self.under_way.back().map_or(due, |(last, _)| due.max(*last));
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.extend_from_slice(packet);
        self.bytes += packet.len();
        self.under_way.push_back((due, buffer));
        Fate::Carried
    }

    /// When the next packet comes out.
    pub(super) fn due(&self) -> Option<Instant> {
        self.under_way.front().map(|(due, _)| *due)
    }

    /// Hands on the packets that have come out by `now`.
    pub(super) fn deliver(&mut self, now: Instant, mut to: impl FnMut(&[u8])) {
        while self.due().is_some_and(|due| due <= now) {
            let Some((_, mut packet)) = self.under_way.pop_front() else { return };
            to(&packet);
            self.bytes -= packet.len();
            if self.spare.len() < Self::SPARE {
                packet.clear();
                self.spare.push(packet);
            }
        }
    }

    /// Loses what is under way.
    pub(super) fn clear(&mut self) {
        self.under_way.clear();
        self.bytes = 0;
        self.free = None;
    }

    /// A number from 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.random.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 1000] = [7; 1000];

    fn out(pipe: &mut Pipe, at: Instant) -> usize {
        let mut count = 0;
        pipe.deliver(at, |_| count += 1);
        count
    }

    #[test]
    fn a_packet_comes_out_when_its_delay_is_over() {
        let (mut pipe, start) = (Pipe::new(1), Instant::now());
        assert_eq!(pipe.offer(&PACKET, &Shape::delay(50), start), Fate::Carried);
        assert_eq!(pipe.due(), Some(start + Duration::from_millis(50)));
        assert_eq!(out(&mut pipe, start + Duration::from_micros(49_999)), 0);
        assert_eq!(out(&mut pipe, start + Duration::from_millis(50)), 1);
        assert_eq!(pipe.bytes, 0);
    }

    #[test]
    fn a_rate_spaces_packets_and_bounds_what_waits() {
        let (mut pipe, start) = (Pipe::new(1), Instant::now());
        let shape = Shape { queue: 4000, ..Shape::rate(8) };
        let fates: Vec<Fate> = (0..6).map(|_| pipe.offer(&PACKET, &shape, start)).collect();
        assert_eq!(fates, [[Fate::Carried; 4].as_slice(), &[Fate::Overflowed; 2]].concat());
        // 1000 bytes at 8 Mbit/s take a millisecond.
        for passed in 1..=4 {
            assert_eq!(out(&mut pipe, start + Duration::from_millis(passed)), 1, "{passed} ms");
        }
        assert_eq!(pipe.offer(&PACKET, &shape, start + Duration::from_millis(4)), Fate::Carried);
    }

    #[test]
    fn jitter_never_turns_the_order_around() {
        let (mut pipe, start) = (Pipe::new(3), Instant::now());
        let shape = Shape { jitter: Duration::from_millis(20), ..Shape::delay(10) };
        for number in 0..200u64 {
            let at = start + Duration::from_millis(number);
            pipe.offer(&number.to_be_bytes(), &shape, at);
        }
        let mut last = None;
        let mut spread = Vec::new();
        for ms in 0..400 {
            pipe.deliver(start + Duration::from_millis(ms), |packet| {
                let number = u64::from_be_bytes(packet.try_into().unwrap());
                assert!(last.is_none_or(|last| last < number));
                last = Some(number);
                spread.push(ms - number);
            });
        }
        assert_eq!(last, Some(199));
        assert!(spread.iter().all(|ms| (10..=31).contains(ms)), "{spread:?}");
        assert!(spread.iter().any(|ms| *ms > 20));
    }

    #[test]
    fn loss_is_what_was_asked_for() {
        let (mut pipe, now) = (Pipe::new(5), Instant::now());
        let shape = Shape { loss: 0.1, ..Shape::default() };
        let lost = (0..10_000).filter(|_| {
            let fate = pipe.offer(b"x", &shape, now);
            pipe.deliver(now, |_| {});
            fate == Fate::Lost
        });
        assert!((900..1100).contains(&lost.count()));
        let down = Shape { down: true, ..Shape::default() };
        assert_eq!(pipe.offer(b"x", &down, now), Fate::Lost);
    }

    #[test]
    fn lines_change_a_shape_or_say_why_not() {
        let mut shape = Shape::default();
        for line in ["delay 50", "jitter 2.5", "loss 0.01", "rate 100", "queue 64", "down"] {
            shape.tell(line).unwrap();
        }
        let told = Shape {
            delay: Duration::from_millis(50),
            jitter: Duration::from_micros(2500),
            loss: 0.01,
            rate: Some(100_000_000),
            queue: 64 << 10,
            down: true,
        };
        assert_eq!(shape, told);
        shape.tell("up").and_then(|()| shape.tell("rate 0")).unwrap();
        assert_eq!((shape.down, shape.rate), (false, None));
        for line in
            ["", "delay", "delay -1", "delay x", "delay NaN", "loss 2", "down 1", "delay 1 2", "faster"]
        {
            assert!(shape.tell(line).is_err(), "{line}");
        }
    }
}
