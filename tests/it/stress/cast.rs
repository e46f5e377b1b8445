//! Who plays: owners of heaps, producers, cleanups, and the weather.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;

use fastrand::Rng;
use sexton::{BackPressure, Mutation, OnDrop, Pacing};

use super::stage::{Held, House, Kind, Post, Stage};
use super::{HEAPS, ORDER, ORDERS, PATIENCE, PRODUCERS, Part, rng};
use crate::dying::{Bomb, throw_bomb};
use crate::world::{Node, World, WorldHeap, builder};

/// All threads of a round.
pub(super) fn parts(stage: &Arc<Stage>) -> Vec<(String, Part)> {
    let mut parts: Vec<(String, Part)> = Vec::new();
    let owners = Arc::new(());
    for heap in 0..HEAPS {
        let (orders, ordered) = channel();
        let office = Arc::new(Office {
            orders,
            exchange: Mutex::default(),
            producing: AtomicUsize::new(PRODUCERS),
        });
        for producer in 0..PRODUCERS {
            let (stage, office) = (stage.clone(), office.clone());
            let rng = rng(stage.seed, 1000 + heap * PRODUCERS + producer);
            parts.push((
                format!("producer {producer} of heap {heap}"),
                Box::new(move |post| produce(&stage, &office, rng, post)),
            ));
        }
        let (stage, owners) = (stage.clone(), owners.clone());
        let rng = rng(stage.seed, 100 + heap);
        parts.push((
            format!("owner of heap {heap}"),
            Box::new(move |post| {
                let _owners = owners;
                own(&stage, &office, &ordered, rng, post);
            }),
        ));
    }
    let (stage, rng) = (stage.clone(), rng(stage.seed, 99));
    let owners = Arc::downgrade(&owners);
    let weather = move |post: &Post| weather(&stage, || owners.strong_count() > 0, rng, post);
    parts.push(("weather".to_owned(), Box::new(weather)));
    parts
}

// ---- producers
// -----------------------------------------------------------------------------------------

/// What an owner shares with its producers and cleanups.
struct Office {
    orders: Sender<Order>,
    /// Handles for others to meddle with.
    exchange: Mutex<Vec<Held>>,
    producing: AtomicUsize,
}

enum Order {
    /// The handles come back.
    These(Vec<Act>, Sender<Vec<Held>>),
    /// Ordered by a cleanup, which does not wait.
    Another(Act),
}

impl Office {
    /// Hands a handle on.
    fn hand_on(&self, held: Held) {
        let mut exchange = self.exchange.lock().unwrap();
        // Those that meddle with one another nest.
        if exchange.len() < 50 {
            exchange.push(held);
        }
    }
}

fn produce(stage: &Stage, office: &Office, mut rng: Rng, post: &Post) {
    struct Leave<'a>(&'a Office);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            self.0.producing.fetch_sub(1, SeqCst);
        }
    }
    let _leave = Leave(office);
    for _ in 0..ORDERS {
        if rng.bool() {
            post.at("sleeps");
            sleep(Duration::from_micros(rng.u64(0..3000)));
        }
        let acts = (0..rng.usize(1..=ORDER)).map(|_| Act::any(&mut rng)).collect();
        let (reply, answer) = channel();
        let sent = office.orders.send(Order::These(acts, reply));
        post.at("waits for its handles");
        let Ok(mut handles) = answer.recv_timeout(2 * PATIENCE) else {
            return stage.check(false, || format!("no answer to an order; sent: {}", sent.is_ok()));
        };
        post.at("meddles");
        rng.shuffle(&mut handles);
        let mut kept = Vec::new();
        for held in handles {
            match rng.u32(0..12) {
                0 | 1 => stage.meddle(&held, true),
                2 | 3 => stage.meddle(&held, false),
                4 => office.hand_on(held.clone()),
                5 => sleep(Duration::from_micros(rng.u64(0..100))),
                _ => {}
            }
            kept.push(held);
        }
        stage.keep(kept);
    }
}

// ---- owners
// --------------------------------------------------------------------------------------------

fn own(
    stage: &Arc<Stage>,
    office: &Arc<Office>,
    orders: &Receiver<Order>,
    mut rng: Rng,
    post: &Post,
) {
    while office.producing.load(SeqCst) > 0 {
        let mut tenant = Tenant::new(stage, office, &mut rng);
        for _ in 0..rng.usize(4..60) {
            post.at("waits for orders");
            match orders.recv_timeout(Duration::from_millis(1)) {
                Ok(order) => {
                    post.at("fills an order");
                    tenant.fill(order, &mut rng);
                }
                Err(RecvTimeoutError::Timeout) if office.producing.load(SeqCst) > 0 => {}
                Err(_) => break,
            }
            match rng.u32(0..32) {
                0..8 => tenant.lose_some(&mut rng, post),
                8..18 => tenant.collect(post),
                18..20 => tenant.wait(&mut rng, post),
                20 => tenant.watch(post),
                21..24 => {
                    post.at("runs local cleanups");
                    tenant.heap.run_local_cleanups(rng.usize(0..50));
                }
                _ => {}
            }
        }
        tenant.drop(post);
    }
}

/// A heap, and the lines of its cleanups.
struct Tenant<'a> {
    stage: &'a Arc<Stage>,
    office: &'a Arc<Office>,
    house: Arc<House>,
    heap: WorldHeap,
    policy: OnDrop,
    registered: u64,
    /// One for each node that lives; none for a node without a line, or with a local cleanup.
    alive: Vec<Option<usize>>,
    /// Those whose objects have died since the last collection.
    dead: Vec<usize>,
    /// Those that are queued, or have been ended by their handles.
    queued: Vec<usize>,
    local: Vec<usize>,
}

impl<'a> Tenant<'a> {
    fn new(stage: &'a Arc<Stage>, office: &'a Arc<Office>, rng: &mut Rng) -> Self {
        stage.count(|tally| tally.heaps += 1);
        let house = stage.house(rng);
        let policy = any_policy(rng);
        let back_pressure = match rng.u32(0..4) {
            0 => BackPressure::Help,
            1 => BackPressure::Wait(Duration::from_millis(rng.u64(0..5))),
            _ => BackPressure::None,
        };
        let pacing = if rng.bool() {
            Pacing::Manual
        } else {
            Pacing::Automatic { min_bytes: 4096, growth: 1.0 }
        };
        let heap = builder()
            .cleanup_pool(&house.pool)
            .on_drop(policy)
            .drop_timeout(Duration::from_millis([0, 1, 50][rng.usize(0..3)]))
            .back_pressure(rng.u64(0..500), back_pressure)
            .diagnostics(rng.u32(0..4) == 0)
            .pacing(pacing)
            .build(|_| World::default());
        let (alive, dead, queued, local) = Default::default();
        Tenant { stage, office, house, heap, policy, registered: 0, alive, dead, queued, local }
    }

    fn fill(&mut self, order: Order, rng: &mut Rng) {
        let (acts, reply) = match order {
            Order::These(acts, reply) => (acts, Some(reply)),
            Order::Another(act) => (vec![act], None),
        };
        let Tenant { stage, office, house, alive, dead, local, .. } = self;
        let handles: Vec<Held> = self.heap.mutate(|mc, world| {
            let mut handles = Vec::new();
            for act in acts {
                let node = mc.alloc(Node::new(0));
                let line = if rng.u32(0..10) == 0 {
                    local.extend(register_local(stage, mc, node, act, house, rng));
                    None
                } else {
                    let held = register(stage, mc, node, act, house, office);
                    handles.extend(held.clone());
                    held.map(|(at, _)| at)
                };
                if rng.bool() {
                    world.nodes.borrow_mut(mc).push(node);
                    alive.push(line);
                } else {
                    dead.extend(line);
                }
            }
            handles
        });
        self.registered += handles.len() as u64;
        let registered = self.heap.stats().cleanups.registered;
        self.stage.check(registered == self.registered, || {
            format!("{registered} are registered, and should be {}", self.registered)
        });
        match reply {
            // It has left if it has found a fault.
            Some(reply) => drop(reply.send(handles)),
            None => handles.into_iter().for_each(|held| self.office.hand_on(held)),
        }
    }

    fn lose_some(&mut self, rng: &mut Rng, post: &Post) {
        post.at("lets objects die");
        let left = rng.usize(0..=self.alive.len());
        self.heap.mutate(|mc, world| world.nodes.borrow_mut(mc).truncate(left));
        self.dead.extend(self.alive.drain(left..).flatten());
    }

    fn collect(&mut self, post: &Post) {
        post.at("collects");
        self.heap.collect();
        self.queued.append(&mut self.dead);
    }

    /// A wait has waited.
    fn wait(&mut self, rng: &mut Rng, post: &Post) {
        self.collect(post);
        post.at("waits for cleanups");
        self.stage.count(|tally| tally.waits += 1);
        let timeout = Duration::from_millis([0, 1, 20][rng.usize(0..3)]);
        if self.heap.wait_for_cleanups(timeout).is_ok() {
            for at in self.queued.drain(..) {
                self.stage.check(self.stage.has_ended_or_is_in_hand(at), || {
                    format!("cleanup {at} was waited for, and has not ended")
                });
            }
        }
    }

    /// A lull: everything ends, but what is stalled, and the heap does nothing for it.
    fn watch(&mut self, post: &Post) {
        self.collect(post);
        post.at("watches its cleanups end");
        self.stage.count(|tally| tally.lulls += 1);
        let (stage, queued) = (self.stage, &mut self.queued);
        stage.watch("the cleanups of a heap end", || {
            queued.retain(|&at| !stage.has_ended_or_is_in_hand(at) && !stage.is_stalled(at));
            queued.is_empty()
        });
    }

    fn drop(mut self, post: &Post) {
        if self.policy != OnDrop::RunAll {
            self.collect(post);
            self.alive.iter().flatten().for_each(|&at| self.stage.outlives_its_heap(at));
        }
        post.at("drops its heap");
        drop(self.heap);
        for at in self.local {
            self.stage.check(self.stage.has_ended(at), || {
                format!("local cleanup {at} has not ended with its heap")
            });
        }
    }
}

fn any_policy(rng: &mut Rng) -> OnDrop {
    [OnDrop::RunAll, OnDrop::RunAll, OnDrop::RunQueued, OnDrop::Discard][rng.usize(0..4)]
}

// ---- cleanups
// ------------------------------------------------------------------------------------------

/// What a cleanup does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Nothing,
    /// It takes its time; long enough, maybe, to be taken for stalled.
    Linger(Duration),
    /// It blocks until the gate is opened.
    Stall,
    Panic,
    /// What it throws panics when it is dropped.
    Throw(u32),
    /// What it captures panics when it is dropped.
    Bomb(u32),
    /// It orders another one, and that again, so often.
    Rearm(u32),
    /// It stops another one, or runs it.
    Meddle,
    /// It has a heap of its own.
    Guest,
    /// It moves the bound of its pool.
    Move,
    /// It shuts its pool down.
    Storm,
}

impl Act {
    fn any(rng: &mut Rng) -> Act {
        match rng.u32(0..1000) {
            0..500 => Act::Nothing,
            500..590 => Act::Linger(Duration::from_micros(rng.u64(1..100))),
            590..595 => Act::Linger(Duration::from_millis(rng.u64(1..6))),
            595..650 => Act::Stall,
            650..720 => Act::Panic,
            720..760 => Act::Throw(rng.u32(0..4)),
            760..820 => Act::Bomb(rng.u32(1..4)),
            820..900 => Act::Rearm(rng.u32(1..4)),
            900..970 => Act::Meddle,
            970..990 => Act::Guest,
            999 if rng.u32(0..10) == 0 => Act::Storm,
            _ => Act::Move,
        }
    }

    fn kind(self, house: &House, local: bool) -> Kind {
        let bomb = matches!(self, Act::Bomb(_));
        let panics = bomb || matches!(self, Act::Panic | Act::Throw(_));
        Kind { house: house.number, local, panics, bomb }
    }
}

type NodeOf<'gc> = sexton::Gc<'gc, Node<'gc>>;

/// Registers a cleanup; none, if the ledger is full.
fn register<'gc>(
    stage: &Arc<Stage>,
    mc: &Mutation<'gc>,
    node: NodeOf<'gc>,
    act: Act,
    house: &Arc<House>,
    office: &Arc<Office>,
) -> Option<Held> {
    let (at, entry) = stage.line(act.kind(house, false))?;
    let bomb = Bomb(if let Act::Bomb(fuse) = act { fuse } else { 0 });
    let (stage, house, office) = (stage.clone(), house.clone(), office.clone());
    let cleanup = mc.add_cleanup(node, move || {
        entry.ran();
        let _captures = (entry, bomb);
        perform(act, at, &stage, &house, &office);
    });
    Some((at, Arc::new(cleanup)))
}

/// Some acts only: the owner runs it, and others wait for the owner.
fn register_local<'gc>(
    stage: &Arc<Stage>,
    mc: &Mutation<'gc>,
    node: NodeOf<'gc>,
    act: Act,
    house: &House,
    rng: &mut Rng,
) -> Option<usize> {
    let act = if matches!(act, Act::Panic | Act::Throw(_)) { act } else { Act::Nothing };
    let (at, entry) = stage.line(act.kind(house, true))?;
    let not_send = Rc::new(entry);
    let handle = mc.add_cleanup_local(node, move || {
        not_send.ran();
        panic_if_it_does(act);
    });
    if rng.u32(0..8) == 0 && handle.stop() {
        stage.was_stopped(at);
    }
    Some(at)
}

fn panic_if_it_does(act: Act) {
    match act {
        Act::Panic => resume_unwind(Box::new("on purpose")),
        Act::Throw(fuse) => throw_bomb(fuse),
        _ => {}
    }
}

fn perform(act: Act, at: usize, stage: &Arc<Stage>, house: &Arc<House>, office: &Arc<Office>) {
    let mut rng = rng(stage.seed, 10_000 + at);
    panic_if_it_does(act);
    let within = Within::enter();
    match act {
        Act::Linger(time) => sleep(time),
        // One that was run by another would hold up that one, too.
        Act::Stall if within.one() => stage.stall(at, house),
        Act::Rearm(times) => {
            let next = if times > 1 { Act::Rearm(times - 1) } else { Act::any(&mut rng) };
            // Its owner may have left.
            let _ = office.orders.send(Order::Another(next));
        }
        Act::Meddle => {
            let held = office.exchange.lock().unwrap().pop();
            if let Some(held) = held {
                stage.meddle(&held, rng.bool());
            }
        }
        Act::Guest => be_guest(stage, house, office, &mut rng),
        Act::Move => house.move_bound(stage, &mut rng),
        Act::Storm => stage.storm(house, &mut rng),
        _ => {}
    }
}

/// Counts the cleanups that this thread is in: one may run another by its handle.
struct Within;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

impl Within {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Within
    }

    fn one(&self) -> bool {
        DEPTH.get() == 1
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// A heap in a cleanup, on the same pool.
fn be_guest(stage: &Arc<Stage>, house: &Arc<House>, office: &Arc<Office>, rng: &mut Rng) {
    stage.count(|tally| tally.heaps += 1);
    let policy = any_policy(rng);
    let mut heap = builder()
        .cleanup_pool(&house.pool)
        .pacing(Pacing::Manual)
        .on_drop(policy)
        .build(|_| World::default());
    let mut alive = Vec::new();
    let acts: Vec<_> = (0..rng.usize(1..5))
        .map(|_| [Act::Nothing, Act::Panic, Act::Bomb(1), Act::Stall][rng.usize(0..4)])
        .collect();
    heap.mutate(|mc, world| {
        for act in acts {
            let node = mc.alloc(Node::new(0));
            let held = register(stage, mc, node, act, house, office);
            if rng.bool() {
                world.nodes.borrow_mut(mc).push(node);
                alive.extend(held.as_ref().map(|(at, _)| *at));
            }
            held.into_iter().for_each(|held| office.hand_on(held));
        }
    });
    if policy != OnDrop::RunAll {
        heap.collect();
        alive.into_iter().for_each(|at| stage.outlives_its_heap(at));
    }
}

// ---- the weather
// ---------------------------------------------------------------------------------------

fn weather(stage: &Stage, goes_on: impl Fn() -> bool, mut rng: Rng, post: &Post) {
    while goes_on() {
        post.at("sleeps");
        sleep(Duration::from_micros(rng.u64(0..1000)));
        for house in stage.houses().iter().filter(|house| house.floor == 0) {
            post.at("runs a manual pool");
            house.pool.run_pending(rng.usize(0..1000));
        }
        let house = stage.house(&mut rng);
        match rng.u32(0..60) {
            0..10 => house.move_bound(stage, &mut rng),
            10..14 if house.floor > 0 => {
                post.at("pauses a pool");
                house.pool.set_max_workers(0);
                sleep(Duration::from_micros(rng.u64(0..1000)));
                house.move_bound(stage, &mut rng);
            }
            14..18 => {
                post.at("opens gates");
                stage.houses().iter().for_each(|house| house.open());
            }
            18..24 => {
                post.at("helps");
                house.pool.run_pending(rng.usize(0..200));
            }
            24..26 => {
                post.at("shuts a pool down");
                // Rather one that has to wait for a thread.
                let houses = stage.houses();
                let busy = houses.iter().find(|house| house.has_stalled() && !house.is_closing());
                stage.storm(busy.unwrap_or(&house), &mut rng);
            }
            26..30 => {
                let text = house.pool.dump().to_string();
                stage.check(text.contains(" of at most "), || text);
            }
            _ => thread::yield_now(),
        }
    }
}
