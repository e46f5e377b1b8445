//! A context that lives as long as its session is made of a session that is lent for so long.

use sexton::Mutation;

struct Context<'gc> {
    mc: &'gc Mutation<'gc>,
}

fn unnamed<'gc>(mc: &Mutation<'gc>) -> Context<'gc> {
    Context { mc }
}

fn of_two_brands<'a, 'gc>(mc: &'a Mutation<'gc>) -> Context<'a> {
    Context { mc }
}

fn main() {}
