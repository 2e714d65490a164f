//! Two samples of a number, and how well a limit on it tells them apart.

/// The share of pairs in which the cheat's number is larger than the honest one's; ties count half. 0.5 is chance.
///
/// Source: Mann and Whitney, 1947; the area under the ROC curve.
pub fn area(honest: &[f64], cheats: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> =
        honest.iter().map(|x| (*x, false)).chain(cheats.iter().map(|x| (*x, true))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut sum) = (0.0, 0.0);
    for ties in all.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let cheats = ties.iter().filter(|x| x.1).count() as f64;
        let honest = ties.len() as f64 - cheats;
        sum += cheats * (below + honest / 2.0);
        below += honest;
    }
    sum / (honest.len() as f64 * cheats.len() as f64).max(1.0)
}

/// The least limit that at most this share of the honest pass.
pub fn limit(honest: &[f64], share: f64) -> f64 {
    let mut sorted = honest.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    // The share of a sample is floor(share · n) of it.
    let allowed = crate::incentives::lot::whole((share * honest.len() as f64).floor());
    usize::try_from(allowed).ok().and_then(|at| sorted.get(at)).copied().unwrap_or(f64::NEG_INFINITY)
}

/// The share above a limit.
pub fn above(numbers: &[f64], limit: f64) -> f64 {
    numbers.iter().filter(|x| **x > limit).count() as f64 / numbers.len().max(1) as f64
}

/// Points of the curve (share of honest, share of cheats above a limit) for all limits, from (0, 0) to (1, 1), thinned to
/// about 200.
pub fn curve(honest: &[f64], cheats: &[f64]) -> Vec<(f64, f64)> {
    let mut limits: Vec<f64> = honest.iter().chain(cheats).copied().collect();
    limits.sort_by(|a, b| b.total_cmp(a));
    limits.dedup();
    let step = limits.len().div_ceil(200).max(1);
    let dense = limits.iter().take(100);
    let mut points = vec![(0.0, 0.0)];
    points.extend(
        dense.chain(limits.iter().skip(100).step_by(step)).map(|l| (above(honest, *l), above(cheats, *l))),
    );
    points.push((1.0, 1.0));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_known_ones() {
        assert_eq!(area(&[1.0, 2.0], &[3.0, 4.0]), 1.0);
        assert_eq!(area(&[3.0, 4.0], &[1.0, 2.0]), 0.0);
        assert_eq!(area(&[1.0, 1.0], &[1.0]), 0.5);
        assert_eq!(area(&[1.0, 3.0], &[2.0]), 0.5);
    }

    #[test]
    fn limits_leave_the_share_they_should() {
        let honest: Vec<f64> = (0..1000).map(f64::from).collect();
        assert_eq!(limit(&honest, 0.001), 998.0);
        assert_eq!(above(&honest, 998.0), 0.001);
        assert_eq!(limit(&honest, 0.0005), 999.0);
        let curve = curve(&[0.0], &[1.0]);
        assert_eq!(curve, [(0.0, 0.0), (0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]);
    }
}
