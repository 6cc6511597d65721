//! The conditions of a contract as a person reads them.
//!
//! A contract's nodes form a graph in which one node can stand in many places, so that written out it could become
//! longer than any memory. What is long is therefore written once, as a step with a number.

use sila_abi::contract::{Contract, Node, Operation, Predicate, When};

/// The longest text that is written out where it is used.
const LONGEST: usize = 120;

/// How an expression stands in another one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A number, a fact or a step's number.
    Atom,
    /// A comparison.
    Comparison,
    /// A negation.
    Not,
    /// `and`.
    And,
    /// `or`.
    Or,
}

/// A node as text.
#[derive(Clone)]
struct Written {
    text: String,
    shape: Shape,
}

/// All nodes of a contract as text.
pub struct Expressions(Vec<Written>);

impl Expressions {
    /// Writes every node of a contract. References that a valid contract does not have show as `?`.
    pub fn of(contract: &Contract) -> Self {
        let mut all = Self(Vec::with_capacity(contract.nodes.len()));
        for node in &contract.nodes {
            let next = all.write(node);
            all.0.push(next);
        }
        all
    }

    fn write(&self, node: &Node) -> Written {
        let (text, shape) = match *node {
            Node::Const(n) => (n.to_string(), Shape::Atom),
            Node::Fact(name) => (name.to_string(), Shape::Atom),
            Node::And(a, b) => {
                (format!("{} and {}", self.side(a, Shape::And), self.side(b, Shape::And)), Shape::And)
            }
            Node::Or(a, b) => {
                (format!("{} or {}", self.side(a, Shape::Or), self.side(b, Shape::Or)), Shape::Or)
            }
            Node::Not(a) => (format!("not {}", self.side(a, Shape::Not)), Shape::Not),
            Node::Eq(a, b) => (format!("{} = {}", self.number(a), self.number(b)), Shape::Comparison),
            Node::Lt(a, b) => (format!("{} < {}", self.number(a), self.number(b)), Shape::Comparison),
            Node::Le(a, b) => (format!("{} <= {}", self.number(a), self.number(b)), Shape::Comparison),
        };
        Written { text, shape }
    }

    /// A node where it is used: its text, or its number if that is long.
    fn used(&self, index: u8) -> Written {
        match self.0.get(usize::from(index)) {
            Some(written) if written.text.len() <= LONGEST => written.clone(),
            Some(_) => Written { text: format!("#{index}"), shape: Shape::Atom },
            None => Written { text: "?".into(), shape: Shape::Atom },
        }
    }

    fn number(&self, index: u8) -> String {
        self.used(index).text
    }

    /// A truth value within `around`: in brackets unless it cannot be misread.
    fn side(&self, index: u8, around: Shape) -> String {
        let Written { text, shape } = self.used(index);
        let clear = match shape {
            Shape::Atom => true,
            Shape::Comparison => around != Shape::Not,
            shape => shape == around && around != Shape::Not,
        };
        if clear { text } else { format!("({text})") }
    }

    /// A predicate's condition, written out at its first level.
    pub fn condition(&self, predicate: &Predicate) -> &str {
        self.0.get(usize::from(predicate.root)).map_or("?", |written| &written.text)
    }

    /// What stands for itself: number and text of each node that is too long to be written where it is used.
    pub fn steps(&self) -> impl Iterator<Item = (usize, &str)> {
        let all = self.0.iter().map(|written| written.text.as_str()).enumerate();
        all.filter(|(_, text)| text.len() > LONGEST)
    }
}

/// When a predicate must hold, in words.
pub fn moment(predicate: &Predicate) -> &'static str {
    match (predicate.when, predicate.operation) {
        (When::Before, Operation::Create) => "before a process is created",
        (When::After, Operation::Create) => "after a process is created",
        (When::Before, Operation::Cache) => "before the image is cached",
        (When::After, Operation::Cache) => "after the image is cached",
        (When::Before, Operation::Load) => "before the module is loaded",
        (When::After, Operation::Load) => "after the module is loaded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkg::keys::{list, name};

    fn contract(nodes: Vec<Node>) -> Contract {
        Contract { nodes: list(nodes, "nodes").unwrap(), ..Contract::default() }
    }

    fn written(nodes: Vec<Node>) -> String {
        let root = u8::try_from(nodes.len() - 1).unwrap();
        let (operation, when) = (Operation::Create, When::Before);
        let predicate = Predicate { name: name("p").unwrap(), operation, when, root };
        Expressions::of(&contract(nodes)).condition(&predicate).to_string()
    }

    fn fact(text: &str) -> Node {
        Node::Fact(name(text).unwrap())
    }

    #[test]
    fn conditions_read_like_sentences() {
        let base = [fact("frames"), Node::Const(256), Node::Le(0, 1), fact("threads"), Node::Eq(3, 1)];
        let with = |more: &[Node]| written([&base[..], more].concat());
        assert_eq!(with(&[]), "threads = 256");
        assert_eq!(with(&[Node::And(2, 4)]), "frames <= 256 and threads = 256");
        assert_eq!(with(&[Node::Not(2)]), "not (frames <= 256)");
        assert_eq!(with(&[Node::Lt(0, 3)]), "frames < threads");
    }

    #[test]
    fn brackets_stand_where_a_reader_could_be_wrong() {
        let base = [fact("a"), fact("b"), Node::Lt(0, 1), Node::Eq(0, 1)];
        let with = |more: &[Node]| written([&base[..], more].concat());
        let (and, or) = (Node::And(2, 3), Node::Or(2, 3));
        assert_eq!(with(&[and, Node::Or(4, 2)]), "(a < b and a = b) or a < b");
        assert_eq!(with(&[or, Node::And(2, 4)]), "a < b and (a < b or a = b)");
        assert_eq!(with(&[and, Node::And(4, 2)]), "a < b and a = b and a < b");
        assert_eq!(with(&[or, Node::Not(4)]), "not (a < b or a = b)");
        assert_eq!(with(&[Node::Not(2), Node::Not(4)]), "not (not (a < b))");
        assert_eq!(with(&[Node::Not(2), Node::And(4, 4)]), "(not (a < b)) and (not (a < b))");
    }

    #[test]
    fn a_graph_that_doubles_at_every_node_stays_short() {
        let mut nodes = vec![Node::Const(1), Node::Eq(0, 0)];
        nodes.extend((1..60).map(|i| Node::And(i, i)));
        let all = Expressions::of(&contract(nodes));
        let total: usize = all.0.iter().map(|written| written.text.len()).sum();
        assert!(total < 60 * (2 * LONGEST + 16), "{total}");
        assert!(all.steps().any(|(_, text)| text.contains('#')), "long nodes stand in others by number");
    }

    #[test]
    fn references_that_lead_nowhere_do_no_harm() {
        assert_eq!(written(vec![Node::Not(7)]), "not ?");
    }
}
