//! Stories with changing permissions.

use std::time::Duration;

use relay_model::{Path, Scope};

use super::{GONE, SETTLED, Story};

impl Story {
    /// Runs a storm in which clients lose and regain permissions; at the end all are allowed everything, and
    /// everything must work and have been correct.
    pub fn run_with_permits(&mut self, events: usize) {
        for _ in 0..2 {
            self.add_viewer();
        }
        self.add_source();
        for _ in 0..events {
            match self.world.rng.chance(0.5) {
                true => self.judge(),
                false => self.event(),
            }
            let pause = Duration::from_millis(self.world.rng.below(700));
            self.run(pause);
            self.resubscribe();
        }
        self.mend();
        self.log.push("everybody may do everything, and it is quiet".to_owned());
        for peer in 0..self.world.peers.len() {
            self.world.revise(peer, &Scope::everything(), &Scope::everything());
        }
        for _ in 0..6 {
            self.run(SETTLED);
            self.resubscribe();
        }
        self.run(GONE);
        self.check_truth();
        self.check_settled();
        self.check_flowing();
        self.leave();
    }

    fn judge(&mut self) {
        let peer = self.world.rng.below(self.world.peers.len() as u64) as usize;
        let mut some = || match self.world.rng.below(4) {
            0 => Scope::nothing(),
            1 => Scope::of([Path::parse("room/0").expect("a path")]),
            _ => Scope::everything(),
        };
        let (publish, subscribe) = (some(), some());
        self.log.push(format!("client {peer} may publish {publish:?} and subscribe {subscribe:?}"));
        self.world.revise(peer, &publish, &subscribe);
    }
}
