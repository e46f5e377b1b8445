//! A tiny lambda calculus: closures and environments that form cycles.
//!
//! `letrec` puts a closure into the very environment that the closure captures: a cycle, which
//! reference counts would leak. Notice:
//! - the program leaves hundreds of thousands of environments behind, and the heap stays small;
//! - collections happen between evaluations, as no session is open there, and the pacer decides
//!   when;
//! - when the last definition goes, so does its cycle: nothing is alive at the end but the empty
//!   global environment.

use std::rc::Rc;

use sexton::{Gc, GcCell, Heap, Leaf, Mutation, Trace};

/// Programs are plain Rust values. Closures in the heap share them through a `Leaf`.
enum Expr {
    Number(i64),
    Name(&'static str),
    Lambda(&'static str, Rc<Expr>),
    Call(Rc<Expr>, Rc<Expr>),
    Add(Rc<Expr>, Rc<Expr>),
    /// `if a is 0 then b else c`
    IfZero(Rc<Expr>, Rc<Expr>, Rc<Expr>),
    /// `let rec name = lambda in body`
    LetRec(&'static str, Rc<Expr>, Rc<Expr>),
}

#[derive(Clone, Copy, Trace)]
enum Value<'gc> {
    Number(Leaf<i64>),
    Closure(Gc<'gc, Closure<'gc>>),
}

#[derive(Trace)]
struct Closure<'gc> {
    parameter: Leaf<&'static str>,
    body: Leaf<Rc<Expr>>,
    environment: Gc<'gc, Environment<'gc>>,
}

/// A name and its value, and the environment around it. The empty one has no name.
#[derive(Trace)]
struct Environment<'gc> {
    name: Leaf<&'static str>,
    value: GcCell<Option<Value<'gc>>>,
    outer: Option<Gc<'gc, Environment<'gc>>>,
}

#[derive(Trace)]
struct World<'gc> {
    globals: Gc<'gc, Environment<'gc>>,
}

fn bind<'gc>(
    mc: &Mutation<'gc>,
    name: &'static str,
    value: Option<Value<'gc>>,
    outer: Gc<'gc, Environment<'gc>>,
) -> Gc<'gc, Environment<'gc>> {
    let (name, value) = (Leaf::new(name), GcCell::new(value));
    mc.alloc(Environment { name, value, outer: Some(outer) })
}

fn eval<'gc>(
    mc: &Mutation<'gc>,
    expr: &Rc<Expr>,
    environment: Gc<'gc, Environment<'gc>>,
) -> Result<Value<'gc>, String> {
    let number = |expr| match eval(mc, expr, environment)? {
        Value::Number(number) => Ok(*number),
        Value::Closure(_) => Err("a closure is no number".to_owned()),
    };
    match &**expr {
        Expr::Number(number) => Ok(Value::Number(Leaf::new(*number))),
        Expr::Name(name) => std::iter::successors(Some(environment), |at| at.outer)
            .find(|at| *at.name == *name)
            .and_then(|at| at.value.get())
            .ok_or_else(|| format!("{name} is not defined")),
        Expr::Lambda(parameter, body) => Ok(Value::Closure(mc.alloc(Closure {
            parameter: Leaf::new(parameter),
            body: Leaf::new(body.clone()),
            environment,
        }))),
        Expr::Call(function, argument) => {
            let Value::Closure(closure) = eval(mc, function, environment)? else {
                return Err("a number cannot be called".to_owned());
            };
            let argument = eval(mc, argument, environment)?;
            let inner = bind(mc, *closure.parameter, Some(argument), closure.environment);
            eval(mc, &closure.body, inner)
        }
        Expr::Add(a, b) => Ok(Value::Number(Leaf::new(number(a)? + number(b)?))),
        Expr::IfZero(condition, zero, other) => {
            eval(mc, if number(condition)? == 0 { zero } else { other }, environment)
        }
        Expr::LetRec(name, value, body) => {
            let inner = bind(mc, name, None, environment);
            // The closure that this makes captures `inner`, which then holds the closure.
            let value = eval(mc, value, inner)?;
            inner.value.set(mc, Some(value));
            eval(mc, body, inner)
        }
    }
}

/// `let rec sum = \n. if n is 0 then 0 else n + sum (n + -1) in sum top`
fn sum_up_to(top: i64) -> Rc<Expr> {
    let n = || Rc::new(Expr::Name("n"));
    let sum = || Rc::new(Expr::Name("sum"));
    let number = |value| Rc::new(Expr::Number(value));
    let rest = Rc::new(Expr::Call(sum(), Rc::new(Expr::Add(n(), number(-1)))));
    let body = Rc::new(Expr::IfZero(n(), number(0), Rc::new(Expr::Add(n(), rest))));
    let lambda = Rc::new(Expr::Lambda("n", body));
    Rc::new(Expr::LetRec("sum", lambda, Rc::new(Expr::Call(sum(), number(top)))))
}

const EVALUATIONS: i64 = 3000;

fn main() -> Result<(), String> {
    let mut heap: Heap<World<'static>> = Heap::new(|mc| {
        let (name, value) = (Leaf::new(""), GcCell::new(None));
        World { globals: mc.alloc(Environment { name, value, outer: None }) }
    });

    let mut most = 0;
    for top in (0..EVALUATIONS).map(|n| n % 300) {
        let program = sum_up_to(top);
        let sum = heap.mutate(|mc, world| match eval(mc, &program, world.globals)? {
            Value::Number(number) => Ok(*number),
            Value::Closure(_) => Err("the sum is a closure".to_owned()),
        })?;
        assert_eq!(sum, top * (top + 1) / 2);
        most = most.max(heap.stats().objects);
    }

    let stats = heap.stats();
    println!(
        "made  {:>6} objects, in {EVALUATIONS} evaluations",
        stats.swept_objects + stats.objects
    );
    println!(
        "held  {most:>6} at most, the dead not yet collected included; {} collections",
        stats.cycles
    );
    let report = heap.collect();
    println!("alive {:>6} at the end", report.live_objects);
    assert_eq!(report.live_objects, 1);
    Ok(())
}
