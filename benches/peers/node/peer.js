// The Node peer: Sexton's kinds of work on V8's heap, with cleanups by FinalizationRegistry.
//
//     node --list       the rows that it measures
//     node --version    Node's and V8's
//     node ROW SIZE     measures a row and those that belong to it, and prints "ROW VALUE" for each
//
// ../README.md says what each row means, how it is had from Node, and what is unfair about it.
'use strict';

const fs = require('node:fs');
const { spawnSync } = require('node:child_process');
const { setTimeout: sleep } = require('node:timers/promises');

class Plain {
  constructor(word) {
    this.a = word;
    this.b = word;
    this.c = word;
    this.d = word;
  }
}

class Pair {
  constructor(word) {
    this.left = null;
    this.right = null;
    this.a = word;
    this.b = word;
  }
}

// ---- Helpers ----

const now = () => Number(process.hrtime.bigint()); // nanoseconds; exact for the first 104 days of uptime

const per = (nanos, n) => nanos / Math.max(n, 1);

function exit(status, line) {
  process.stderr.write(line + '\n');
  process.exit(status);
}

/** The last of this many results. */
async function warm(rounds, measure) {
  let last;
  for (let i = 0; i < rounds; i++) last = await measure();
  return last;
}

const nanos = (work) => {
  const start = now();
  work();
  return now() - start;
};

/** The milliseconds of a program, the last of this many times. */
const millis = async (rounds, program) => (await warm(rounds, () => nanos(program))) / 1e6;

/** xorshift32 from the same state each time; returns numbers below 1. */
function seeded() {
  let state = 0x5e370b5e;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 0x1_0000_0000;
  };
}

// ---- W1 ----

let sink;

// The store now and then is enough for the compiler to make all objects, and spares V8's write barrier, which a
// store of each would measure instead.
function garbage(n) {
  for (let i = 0; i < n; i++) {
    const object = new Plain(i);
    if ((i & 1023) === 0) sink = object;
  }
}

const w1 = async (n) => [per(await warm(8, () => nanos(() => garbage(n))), n)];

// ---- W2r ----

const living = [];

/** Makes n objects of which a share lives, and returns how many do not. */
function fill(n, live) {
  const random = seeded();
  let kept = 0;
  for (let i = 0; i < n; i++) {
    const object = new Plain(i);
    if (random() < live) living[kept++] = object;
  }
  return n - kept;
}

const refill = (n, live) => warm(5, () => {
  const dead = fill(n, live);
  gc();
  const value = per(nanos(() => garbage(dead)), dead);
  living.fill(null);
  gc();
  return value;
});

const w2r = async (n) => [await refill(n, 0.5), await refill(n, 0.9)];

// ---- W3 ----

function shuffle(all) {
  const random = seeded();
  for (let i = all.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [all[i], all[j]] = [all[j], all[i]];
  }
}

function chain(all) {
  for (let i = 0; i + 1 < all.length; i++) all[i].left = all[i + 1];
}

const links = {
  // A chain through all in random order, so that all are live, and a random edge more from each.
  random(all) {
    shuffle(all);
    chain(all);
    const random = seeded();
    for (const one of all) one.right = all[Math.floor(random() * all.length)];
  },
  list: chain,
  shuffled(all) {
    shuffle(all);
    chain(all);
  },
  tree(all) {
    for (let i = 0; i < all.length; i++) {
      all[i].left = all[2 * i + 1] ?? null;
      all[i].right = all[2 * i + 2] ?? null;
    }
  },
};

let root;

function build(n, link) {
  const all = new Array(n);
  for (let i = 0; i < n; i++) all[i] = new Pair(i);
  gc(); // old, whatever young collections there were before
  link(all);
  root = all[0]; // in a shuffled array another one than before
}

/** What the second process does: it links n nodes and marks them three times. */
async function graphHere(kind, n) {
  build(Number(n), links[kind]);
  for (let i = 0; i < 3; i++) {
    await sleep(50); // until the sweep in the background has ended
    gc();
  }
  if (root === null) exit(1, 'W3: no root');
}

function graph(kind, n) {
  const child = spawnSync(
    process.execPath,
    [...process.execArgv, '--trace-gc-nvp', __filename, '--graph', kind, String(n)],
    { encoding: 'utf8', maxBuffer: 1 << 30 },
  );
  const marks = [...child.stdout.matchAll(/ gc=mc .* mark=([0-9.]+) /g)];
  if (child.status !== 0 || marks.length < 3) {
    exit(1, `W3: a process with --trace-gc-nvp ended with status ${child.status} and told of ${marks.length} marks`);
  }
  return per(Number(marks.at(-1)[1]) * 1e6, n);
}

// ---- W4, W5, W8: many cleanups ----

let current; // a registry without a reference is garbage too, and then makes no calls

/** A registry whose callback does `work` with the number of the object, and a promise that n calls have ended. */
function registry(n, work) {
  let left = n;
  let allRan;
  const ended = new Promise((resolve) => {
    allRan = resolve;
  });
  const done = () => {
    if (--left === 0) allRan();
  };
  const late = setTimeout(() => exit(1, `after 120 s, ${left} cleanups had not run`), 120_000);
  ended.then(() => clearTimeout(late));
  current = new FinalizationRegistry((number) => work(number, done));
  return { ended, registry: current };
}

/** Makes n objects, and then gives each its cleanup. No reference keeps them. */
function register(n, to) {
  const all = new Array(n);
  for (let i = 0; i < n; i++) all[i] = new Plain(i);
  const start = now();
  for (let i = 0; i < n; i++) to.register(all[i], i);
  return now() - start;
}

/** Registers n cleanups, and collects: nanoseconds for each of the two. */
async function cleanups(n, work) {
  gc();
  await sleep(10);
  const { ended, registry: to } = registry(n, work);
  const registered = register(n, to);
  await sleep(1); // the stack of what registered is gone
  const start = now();
  gc();
  await ended;
  return [per(registered, n), per(now() - start, n)];
}

const w4 = (n) => warm(4, () => cleanups(n, (_number, done) => done()));

const w5 = (n) => {
  const object = new Plain(0);
  const to = new FinalizationRegistry(() => {});
  return warm(5, () => {
    const start = now();
    for (let i = 0; i < n; i++) {
      to.register(object, i, object);
      to.unregister(object);
    }
    return [per(now() - start, n)];
  });
};

function spin() {
  const end = performance.now() + 0.001;
  while (performance.now() < end);
}

const word = new Int32Array(new SharedArrayBuffer(4));

function busy(_number, done) {
  spin();
  done();
}

function stall(number, done) {
  if (number % 1000 === 0) Atomics.wait(word, 0, 0, 1);
  else spin();
  done();
}

function handOff(number, done) {
  if (number % 1000 === 0) {
    setTimeout(done, 1);
    return;
  }
  spin();
  done();
}

const run = async (n, work) => (await warm(2, () => cleanups(n, work)))[1];

const w8 = async (n) => [await run(n, busy), await run(n, stall)];

// ---- W6 ----

function alone(to) {
  to.register(new Plain(0), 0);
}

/** From the return of gc() to the start of the only cleanup there is. */
async function w6(n) {
  const unmeasured = 100;
  const times = [];
  for (let i = 0; i < n + unmeasured; i++) {
    let started;
    const { ended, registry: to } = registry(1, (_number, done) => {
      started = now();
      done();
    });
    alone(to);
    await sleep(1);
    gc();
    const collected = now();
    await ended;
    if (i >= unmeasured) times.push(started - collected);
  }
  times.sort((a, b) => a - b);
  return [0.5, 0.99].map((share) => times[Math.floor(share * (n - 1))]);
}

// ---- W7: binary-trees ----

class Tree {
  constructor(left, right) {
    this.left = left;
    this.right = right;
  }
}

function bottomUp(depth) {
  return depth === 0 ? new Tree(null, null) : new Tree(bottomUp(depth - 1), bottomUp(depth - 1));
}

function check(tree) {
  return tree.left === null ? 1 : 1 + check(tree.left) + check(tree.right);
}

function expect(nodes, depth, trees) {
  const want = trees * (2 ** (depth + 1) - 1);
  if (nodes !== want) exit(1, `${trees} trees of depth ${depth} have ${nodes} nodes; expected were ${want}`);
}

function binaryTrees(depth) {
  expect(check(bottomUp(depth + 1)), depth + 1, 1);
  const longLived = bottomUp(depth);
  for (let k = 4; k <= depth; k += 2) {
    const trees = 2 ** (depth + 4 - k);
    let nodes = 0;
    for (let i = 0; i < trees; i++) nodes += check(bottomUp(k));
    expect(nodes, k, trees);
  }
  expect(check(longLived), depth, 1);
}

async function w7(depth) {
  return [await millis(3, () => binaryTrees(depth)), status('VmHWM') / 1e6];
}

// ---- GCBench, by Ellis, Kovac and Boehm ----

class Node {
  constructor(left, right) {
    this.left = left;
    this.right = right;
    this.i = 0;
    this.j = 0;
  }
}

/** Builds the tree from its root downwards. */
function populate(depth, node) {
  if (depth <= 0) return;
  node.left = new Node(null, null);
  node.right = new Node(null, null);
  populate(depth - 1, node.left);
  populate(depth - 1, node.right);
}

/** Builds it from its leaves upwards. */
function make(depth) {
  return depth <= 0 ? new Node(null, null) : new Node(make(depth - 1), make(depth - 1));
}

function gcBench() {
  const stretch = 18;
  sink = make(stretch);
  sink = null;
  const longLived = new Node(null, null);
  populate(16, longLived);
  const array = new Float64Array(500_000);
  for (let i = 1; i < 250_000; i++) array[i] = 1 / i;
  for (let depth = 4; depth <= 16; depth += 2) {
    const trees = Math.floor((2 * (2 ** (stretch + 1) - 1)) / (2 ** (depth + 1) - 1));
    for (let i = 0; i < trees; i++) {
      const top = new Node(null, null);
      populate(depth, top);
      sink = top;
    }
    sink = null;
    for (let i = 0; i < trees; i++) sink = make(depth);
    sink = null;
  }
  if (longLived.left === null || array[1000] !== 1 / 1000) exit(1, 'GCBench: the long-lived data are wrong');
}

// ---- Memory ----

/** A line of the process's status, in bytes. */
function status(key) {
  const found = fs.readFileSync('/proc/self/status', 'utf8').match(new RegExp(`^${key}:\\s*([0-9]+) kB$`, 'm'));
  if (found === null) exit(1, `memory: no ${key} in /proc/self/status`);
  return Number(found[1]) * 1024;
}

/** What the heap holds after a collection, and what the process does. */
async function held() {
  for (let i = 0; i < 3; i++) {
    gc();
    await sleep(100); // for what is given back in the background
  }
  return [process.memoryUsage().heapUsed, status('VmRSS')];
}

async function growth(before, n) {
  return (await held()).map((after, i) => (after - before[i]) / n);
}

let kept;

async function memoryObject(n) {
  kept = new Array(n).fill(null);
  const before = await held();
  for (let i = 0; i < n; i++) kept[i] = new Plain(i);
  return growth(before, n);
}

async function memoryCleanup(n) {
  kept = new Array(n).fill(null);
  for (let i = 0; i < n; i++) kept[i] = new Plain(i);
  sink = new FinalizationRegistry(() => {});
  const before = await held();
  for (let i = 0; i < n; i++) sink.register(kept[i], i);
  return growth(before, n);
}

// ---- The rows ----

/** Rows that are measured together, in the order of ids. */
const groups = {
  'W1': w1,
  'W2r.50 W2r.90': w2r,
  ...Object.fromEntries(Object.keys(links).map((kind) => [`W3.${kind}`, (n) => [graph(kind, n)]])),
  'W4.register W4.run': w4,
  'W5': w5,
  'W6.p50 W6.p99': w6,
  'W7.wall W7.rss': w7,
  'GCBench.wall': async () => [await millis(4, gcBench)],
  'W8.plain W8.stalls': w8,
  'W8.stalls@handoff': async (n) => [await run(n, handOff)],
  'memory.object memory.object@rss': memoryObject,
  'memory.cleanup memory.cleanup@rss': memoryCleanup,
};

async function main([row, size]) {
  if (row === '--graph') return graphHere(...process.argv.slice(3));
  if (row === '--list') return Object.keys(groups).forEach((ids) => console.log(ids));
  if (row === '--version') return console.log(`Node ${process.versions.node}, V8 ${process.versions.v8}`);
  const ids = Object.keys(groups).find((some) => some.split(' ').includes(row));
  if (ids === undefined || !(size >= 0)) exit(1, `row "${row}", size "${size}"; valid is a row that --list prints, and a number`);
  const values = await groups[ids](Number(size));
  ids.split(' ').forEach((id, i) => console.log(`${id} ${values[i].toFixed(4)}`));
}

main(process.argv.slice(2)).catch((error) => exit(1, String(error?.stack ?? error).split('\n')[0]));
