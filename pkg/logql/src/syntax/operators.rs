//! Precedence: flat lists of operands and operators become trees.
//!
//! Invariant: this is what a table-driven parser does. An operator waits until its right operand is complete; when the next
//! operator comes, either the waiting one binds (its operands become one), or reading goes on and the next one binds first.
//! No recursion, so the length of a list is no danger; the depth of the tree is the caller's to bound.

use std::cmp::Ordering;

use crate::ast::BinOp;

/// Joins `first op operand op operand …`. `binds(waiting, next)`: the waiting operator binds before the next one.
pub(crate) fn tree<T, O, E>(
    first: T,
    rest: impl IntoIterator<Item = (O, T)>,
    binds: impl Fn(&O, &O) -> bool,
    mut join: impl FnMut(T, O, T) -> Result<T, E>,
) -> Result<T, E> {
    let mut waiting: Vec<(T, O)> = Vec::new();
    let mut last = first;
    for (operator, operand) in rest {
        while let Some((left, op)) = waiting.pop_if(|(_, op)| binds(op, &operator)) {
            last = join(left, op, last)?;
        }
        waiting.push((std::mem::replace(&mut last, operand), operator));
    }
    while let Some((left, op)) = waiting.pop() {
        last = join(left, op, last)?;
    }
    Ok(last)
}

/// What stands between two label filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combinator {
    And,
    Or,
    /// `,` or nothing: means `and`, but has no precedence.
    Beside,
}

impl Combinator {
    /// `and` before `or`, both from left to right; beside either, whatever comes next binds first.
    pub(crate) fn binds_before(self, next: Self) -> bool {
        match (self, next) {
            (Self::Beside, _) | (_, Self::Beside) => false,
            (Self::And, _) => true,
            (Self::Or, next) => next == Self::Or,
        }
    }
}

/// Whether the left one of two binary operators binds first.
pub(crate) fn binary_binds_before(left: BinOp, right: BinOp) -> bool {
    match strength(left).cmp(&strength(right)) {
        Ordering::Less => false,
        Ordering::Equal => left != BinOp::Pow,
        Ordering::Greater => true,
    }
}

fn strength(op: BinOp) -> u8 {
    match op {
        BinOp::Or => 0,
        BinOp::And | BinOp::Unless => 1,
        BinOp::Eq | BinOp::Neq | BinOp::Gt | BinOp::Gte | BinOp::Lt | BinOp::Lte => 2,
        BinOp::Add | BinOp::Sub => 3,
        BinOp::Mul | BinOp::Div | BinOp::Mod => 4,
        BinOp::Pow => 5,
    }
}

/// The value of an operator between two literals. Comparisons give 0 or 1, division by zero NaN. `None` for set operators.
pub(crate) fn fold(op: BinOp, left: f64, right: f64) -> Option<f64> {
    let truth = compare(op, left, right).map(|holds| f64::from(u8::from(holds)));
    // Zero has no sign, because no query can say `-0`.
    Some(truth.or_else(|| arithmetic(op, left, right))? + 0.0)
}

/// Whether a comparison holds. `None` for other operators.
pub(crate) fn compare(op: BinOp, left: f64, right: f64) -> Option<bool> {
    Some(match op {
        BinOp::Eq => left == right,
        BinOp::Neq => left != right,
        BinOp::Gt => left > right,
        BinOp::Gte => left >= right,
        BinOp::Lt => left < right,
        BinOp::Lte => left <= right,
        _ => return None,
    })
}

/// The value of an arithmetic operator; division by zero is NaN, never infinite. `None` for other operators.
pub(crate) fn arithmetic(op: BinOp, left: f64, right: f64) -> Option<f64> {
    Some(match op {
        BinOp::Add => left + right,
        BinOp::Sub => left - right,
        BinOp::Mul => left * right,
        BinOp::Div | BinOp::Mod if right == 0.0 => f64::NAN,
        BinOp::Div => left / right,
        BinOp::Mod => left % right,
        BinOp::Pow => left.powf(right),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(text: &str) -> String {
        let mut words = text.split(' ');
        let first = words.next().unwrap_or_default().to_owned();
        let mut rest = Vec::new();
        while let (Some(op), Some(operand)) = (words.next(), words.next()) {
            let op = match op {
                "and" => Combinator::And,
                "or" => Combinator::Or,
                _ => Combinator::Beside,
            };
            rest.push((op, operand.to_owned()));
        }
        let sign = |op| match op {
            Combinator::And => '&',
            Combinator::Or => '|',
            Combinator::Beside => ',',
        };
        let joined: Result<_, ()> =
            tree(first, rest, |a, b| a.binds_before(*b), |l, op, r| Ok(format!("({l}{}{r})", sign(op))));
        joined.unwrap_or_default()
    }

    #[test]
    fn combinators_group_as_yacc_groups_them() {
        assert_eq!(grouped("a and b or c and d"), "((a&b)|(c&d))");
        assert_eq!(grouped("a and b and c or d or e"), "((((a&b)&c)|d)|e)");
        assert_eq!(grouped("a , b or c"), "(a,(b|c))");
        assert_eq!(grouped("a or b , c"), "(a|(b,c))");
        assert_eq!(grouped("a and b , c or d"), "(a&(b,(c|d)))");
        assert_eq!(grouped("a , b or c , d and e"), "(a,(b|(c,(d&e))))");
    }

    #[test]
    fn literals_fold() {
        assert_eq!(fold(BinOp::Pow, 2.0, 9.0), Some(512.0));
        assert_eq!(fold(BinOp::Gt, 1.0, 2.0), Some(0.0));
        assert!(fold(BinOp::Div, 5.0, 0.0).is_some_and(f64::is_nan));
        assert_eq!(fold(BinOp::Mod, -5.0, 3.0), Some(-2.0));
        assert_eq!(fold(BinOp::And, 1.0, 1.0), None);
    }
}
