//! What the report of a cycle in slices tells of them.

use super::*;

/// The phases of a pause are no longer than it, and the longest of each is part of the sum.
fn assert_sums(report: &GcReport) {
    let of_one = [report.longest_mark, report.longest_clear, report.longest_sweep];
    let of_all = [report.mark_time, report.clear_time, report.sweep_time + report.flush_time];
    for (one, all) in of_one.into_iter().zip(of_all) {
        assert!(one <= all && one <= report.longest_pause, "{report:?}");
        assert!(one.is_zero() == all.is_zero(), "{report:?}");
        // The longest is not below the mean.
        assert!(one >= all / report.slices as u32, "{report:?}");
    }
    assert!(of_one.into_iter().max() >= Some(report.longest_pause / 4), "{report:?}");
}

#[test]
fn a_report_tells_the_longest_of_each_phase() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        fill(play, stage);
        let report = finish(play);
        assert!(report.slices > 10 && report.longest_mark < report.mark_time, "{report:?}");
        assert!(report.longest_sweep < report.sweep_time + report.flush_time);
        assert_sums(&report);
        // At once each is all of it.
        let report = play.collect();
        assert_eq!(
            (report.longest_mark, report.longest_clear, report.longest_sweep),
            (report.mark_time, report.clear_time, report.sweep_time + report.flush_time)
        );
    }
    in_both_modes!(body);
}

#[test]
fn a_report_counts_what_is_born_while_it_marks_and_what_the_barrier_marks() {
    const BORN: usize = 777;
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        fill(play, stage);
        assert!(!play.step().is_finished());
        play.session(|mc, world| {
            // Only these have to be marked for it: what they lead to is found from them.
            let mut node = world.links.lock(mc).nodes[0];
            for _ in 0..NODES / 2 {
                node = node.next.load().expect("the list is longer");
            }
            let unmarked = marked(&[node]) == 0;
            for _ in 0..3 {
                // The same pointer each time.
                let next = node.next.load();
                node.next.store(mc, next);
            }
            assert!(unmarked, "the mark has not come that far");
            let mut last = None;
            for _ in 0..BORN {
                last = Some(P::alloc(mc, stage.node(last)));
            }
            world.links.lock(mc).nodes.extend(last);
        });
        let report = finish(play);
        assert_eq!(report.born_while_marking, BORN as u64);
        // The list in the root's lock was traced at the begin.
        assert_eq!(report.shaded_objects, 1);
        assert_eq!(report.swept_objects, NODES as u64);
        assert_eq!(play.collect().born_while_marking, 0);
    }
    in_both_modes!(body);
}

/// A slice within an allocation counts, and one at the end of a session does not.
#[test]
fn a_report_tells_how_long_sessions_have_assisted() {
    let pacing = Pacing::Automatic { min_bytes: 1 << 20, growth: 0.5 };
    let pause_budget = Some(Duration::ZERO);
    in_local(HeapConfig { pacing, pause_budget, ..config() }, |heap, stage| {
        fill(heap, stage);
        assert!(finish(heap).assist_time.is_zero());
        assert!(!heap.step(Duration::ZERO).is_finished());
        heap.mutate(|mc, _| {
            for _ in 0..1000 {
                mc.alloc(Leaf::new([0_u64; 128]));
            }
        });
        let report = finish(heap);
        assert!(!report.assist_time.is_zero() && report.assist_time < report.pause_time);
        assert_eq!(heap.stats().assist_time, report.assist_time);
    });
}
