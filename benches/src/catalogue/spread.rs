//! Several measurements of one thing: their median, and how far apart they lie.

/// The median of several measurements, with the least and the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// Half of the measurements are not above it, half are not below it.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The greatest.
    pub(crate) max: f64,
}

impl Spread {
    /// Sums up `values`, or `None` if there are none. NaNs count as the greatest.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Spread { median: (low + high) / 2.0, min, max })
    }

    /// The spread of a decreasing function of what was measured, such as a rate of a time.
    pub(crate) fn inverse(self, rate: impl Fn(f64) -> f64) -> Self {
        Spread { median: rate(self.median), min: rate(self.max), max: rate(self.min) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 10.0]).unwrap();
        assert_eq!(spread, Spread { median: 3.5, min: 1.0, max: 10.0 });
        assert_eq!(Spread::of(Vec::new()), None);
    }
    #[test]
    fn a_rate_turns_least_and_greatest_around() {
        let spread = Spread { median: 2.0, min: 1.0, max: 4.0 }.inverse(|time| 8.0 / time);
        assert_eq!(spread, Spread { median: 4.0, min: 2.0, max: 8.0 });
    }
}
