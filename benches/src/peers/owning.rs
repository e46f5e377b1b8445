//! The programs of peers whose pointers own what they point to, alone or together: binary-trees,
//! GCBench and a list, written once. What differs is the pointer and what is derived.

/// Defines a peer with these programs.
///
/// Its module has `Owner<T>`, the pointer, and `own`, which makes one; `Link<T>`, a place for an
/// `Owner<T>` that is set once, and `link`, which sets it.
macro_rules! owning_peer {
    ($Peer:ident { $($field:ident: $type:ty),* }, derive($($derive:ident),*)) => {
        /// What lives.
        #[derive(Default)]
        pub(crate) struct $Peer {
            tree: Option<Owner<Tree>>,
            node: Option<Owner<Node>>,
            numbers: Option<Owner<Vec<f64>>>,
            list: Option<Owner<Linked>>,
            $($field: $type,)*
        }

        impl crate::peers::driver::Programs for $Peer {
            fn tree(&mut self, depth: usize) -> usize {
                bottom_up(depth).check()
            }

            fn keep_tree(&mut self, depth: usize) {
                self.tree = Some(bottom_up(depth));
            }

            fn kept_nodes(&mut self) -> usize {
                self.tree.as_ref().map_or(0, |tree| tree.check())
            }

            fn top_down(&mut self, depth: usize) {
                drop(black_box(top_down(depth)));
            }

            fn bottom_up(&mut self, depth: usize) {
                drop(black_box(make(depth)));
            }

            fn keep_tree_and_array(&mut self, depth: usize, numbers: usize) {
                self.node = Some(top_down(depth));
                self.numbers = Some(own((0..numbers).map(|n| 1.0 / (n + 1) as f64).collect()));
            }

            fn kept_numbers(&mut self) -> usize {
                black_box(self.node.as_ref().map(|node| node.numbers));
                self.numbers.as_ref().map_or(0, |numbers| numbers.len())
            }

            fn keep_list(&mut self, objects: usize) {
                self.list = linked(objects);
                black_box(self.list.as_ref().map(|it| (it.words, it.before.is_some())));
            }
        }

        #[derive($($derive),*)]
        struct Tree {
            children: Option<(Owner<Tree>, Owner<Tree>)>,
        }

        fn bottom_up(depth: usize) -> Owner<Tree> {
            let children = (depth > 0).then(|| (bottom_up(depth - 1), bottom_up(depth - 1)));
            own(Tree { children })
        }

        impl Tree {
            fn check(&self) -> usize {
                self.children.as_ref().map_or(1, |(left, right)| 1 + left.check() + right.check())
            }
        }

        #[derive(Default, $($derive),*)]
        struct Node {
            left: Link<Node>,
            right: Link<Node>,
            numbers: [i32; 2],
        }

        fn populate(of: &Node, depth: usize) {
            if depth > 0 {
                let children = [own(Node::default()), own(Node::default())];
                children.iter().for_each(|child| populate(child, depth - 1));
                let [left, right] = children;
                link(&of.left, left);
                link(&of.right, right);
            }
        }

        fn top_down(depth: usize) -> Owner<Node> {
            let top = own(Node::default());
            populate(&top, depth);
            top
        }

        fn make(depth: usize) -> Owner<Node> {
            let node = Node::default();
            if depth > 0 {
                link(&node.left, make(depth - 1));
                link(&node.right, make(depth - 1));
            }
            own(node)
        }

        /// An object of 32 bytes, which owns the one before.
        #[derive($($derive),*)]
        struct Linked {
            before: Option<Owner<Linked>>,
            words: [u64; 3],
        }

        fn linked(objects: usize) -> Option<Owner<Linked>> {
            (0..objects).fold(None, |before, n| Some(own(Linked { before, words: [n as u64; 3] })))
        }
    };
}

pub(super) use owning_peer;
