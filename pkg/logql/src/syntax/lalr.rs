//! Tables of an LALR(1) parser, made from the text of a grammar the way yacc makes them.
//!
//! Invariants:
//! * conflicts are settled as yacc settles them: between reading on and completing a production by precedence, without
//!   precedence by reading on; between two productions by the one written first;
//! * every state that completes productions has a *default*: the production completed for the most tokens, done for every
//!   token without an action of its own. So an unexpected token is noticed only in a state that has no default, which is what
//!   an error message tells about;
//! * the grammar is a constant of this crate: a mistake in it is a bug, found by the first test that builds the tables.
//!
//! The look-ahead sets are computed after DeRemer and Pennello, "Efficient Computation of LALR(1) Look-Ahead Sets" (1982).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::token::Kind;

type Symbol = u16;
type State = u16;

const TERMINALS: usize = Kind::ALL.len();

/// A set of terminals.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Terminals(u128);

const _: () = assert!(TERMINALS <= 128, "a set of terminals is a u128");

impl Terminals {
    fn insert(&mut self, terminal: Symbol) {
        self.0 |= 1 << terminal;
    }

    fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn contains(self, terminal: usize) -> bool {
        self.0 & (1 << terminal) != 0
    }

    fn len(self) -> u32 {
        self.0.count_ones()
    }
}

/// What must hold when a production is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The last token is a valid regular expression.
    Regex,
    /// The last token is a valid `regexp` parser.
    Regexp,
    /// The last token is a valid `pattern` parser.
    Pattern,
    /// The last token is a number that can be read.
    Number,
}

/// A production: `head` becomes `body`.
#[derive(Debug)]
struct Production {
    head: Symbol,
    body: Vec<Symbol>,
    check: Option<Check>,
    precedence: Option<(u8, Associativity)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Associativity {
    Left,
    Right,
}

/// What the parser does with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Take it and go to the state.
    Shift(State),
    /// Complete the production first.
    Reduce(u16),
    /// The text is complete.
    Accept,
}

/// The tables.
pub(crate) struct Tables {
    /// Per state: what to do with a token, except for the default.
    actions: Vec<BTreeMap<Kind, Action>>,
    defaults: Vec<Option<u16>>,
    gotos: Vec<HashMap<Symbol, State>>,
    productions: Vec<Production>,
}

impl Tables {
    /// The tables of a grammar text.
    pub(crate) fn build(text: &str) -> Self {
        let grammar = Grammar::read(text);
        let automaton = Automaton::build(&grammar);
        let lookaheads = automaton.lookaheads(&grammar);
        let mut actions = Vec::new();
        let mut defaults = Vec::new();
        for (state, transitions) in automaton.transitions.iter().enumerate() {
            let (row, default) = automaton.row(&grammar, state, transitions, &lookaheads);
            actions.push(row);
            defaults.push(default);
        }
        let gotos = automaton.transitions;
        Self { actions, defaults, gotos, productions: grammar.productions }
    }

    /// What to do in `state` without looking at a token, if that is the same for every token.
    pub(crate) fn certain(&self, state: State) -> Option<u16> {
        self.defaults[usize::from(state)].filter(|_| self.actions[usize::from(state)].is_empty())
    }

    /// What to do in `state` with `kind`; `None` if it is unexpected.
    pub(crate) fn action(&self, state: State, kind: Kind) -> Option<Action> {
        let state = usize::from(state);
        self.actions[state].get(&kind).copied().or_else(|| self.defaults[state].map(Action::Reduce))
    }

    /// The tokens that can be taken in `state`, in order.
    pub(crate) fn expected(&self, state: State) -> impl Iterator<Item = Kind> {
        let row = &self.actions[usize::from(state)];
        row.iter().filter(|(_, action)| matches!(action, Action::Shift(_))).map(|(kind, _)| *kind)
    }

    /// How many symbols `production` replaces, and what must hold.
    pub(crate) fn production(&self, production: u16) -> (usize, Option<Check>) {
        let production = &self.productions[usize::from(production)];
        (production.body.len(), production.check)
    }

    /// Where `production` leads from the state below its symbols.
    pub(crate) fn after(&self, state: State, production: u16) -> Option<State> {
        self.gotos[usize::from(state)].get(&self.productions[usize::from(production)].head).copied()
    }
}

struct Grammar {
    productions: Vec<Production>,
    /// Per symbol: its productions.
    of: Vec<Vec<u16>>,
    precedence: HashMap<Symbol, (u8, Associativity)>,
}

impl Grammar {
    /// Production 0 is the start: the first head of the text.
    fn read(text: &str) -> Self {
        let mut grammar = Self { productions: Vec::new(), of: Vec::new(), precedence: HashMap::new() };
        let mut names: HashMap<String, Symbol> = HashMap::new();
        for (number, kind) in Kind::ALL.iter().enumerate() {
            names.insert(kind.name().to_owned(), number as Symbol);
        }
        names.insert("\"|\"".to_owned(), Kind::Pipe as Symbol);
        let mut rules: Vec<(String, String)> = Vec::new();
        let mut level = 0;
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            if let Some(operators) = line.strip_prefix("%left ").or_else(|| line.strip_prefix("%right ")) {
                level += 1;
                let associativity = if line.starts_with("%left") { Associativity::Left } else { Associativity::Right };
                for operator in operators.split_whitespace() {
                    grammar.precedence.insert(names[operator], (level, associativity));
                }
            } else if line.starts_with(' ') {
                let rule = rules.last_mut().expect("a grammar starts with a head");
                rule.1.push(' ');
                rule.1.push_str(line.trim());
            } else {
                let (head, bodies) = line.split_once(':').expect("a rule is head: bodies");
                rules.push((head.to_owned(), bodies.to_owned()));
            }
        }
        for (head, _) in &rules {
            let symbol = names.len() as Symbol - 1;
            names.entry(head.clone()).or_insert(symbol);
        }
        grammar.of = vec![Vec::new(); names.len()];
        for (head, bodies) in &rules {
            for body in bodies.split(" | ") {
                grammar.add(names[head], body, &names);
            }
        }
        grammar
    }

    /// Adds the productions of one alternative: one per choice of what is optional.
    fn add(&mut self, head: Symbol, body: &str, names: &HashMap<String, Symbol>) {
        let (symbols, check) = body.split_once("=>").unwrap_or((body, ""));
        let check = match check.trim() {
            "" => None,
            "regex" => Some(Check::Regex),
            "regexp" => Some(Check::Regexp),
            "pattern" => Some(Check::Pattern),
            "number" => Some(Check::Number),
            other => unreachable!("no such check in the grammar: {other}"),
        };
        let mut bodies: Vec<Vec<Symbol>> = vec![Vec::new()];
        for word in symbols.split_whitespace().filter(|word| *word != "%empty") {
            let optional = word.strip_suffix('?');
            let symbol = *names.get(optional.unwrap_or(word)).expect("every symbol of the grammar is defined");
            let without = bodies.clone();
            bodies.iter_mut().for_each(|body| body.push(symbol));
            if optional.is_some() {
                bodies.splice(0..0, without);
            }
        }
        for body in bodies {
            let last_terminal = body.iter().rev().find(|s| usize::from(**s) < TERMINALS);
            let precedence = last_terminal.and_then(|s| self.precedence.get(s)).copied();
            self.of[usize::from(head)].push(self.productions.len() as u16);
            self.productions.push(Production { head, body, check, precedence });
        }
    }

    fn is_terminal(symbol: Symbol) -> bool {
        usize::from(symbol) < TERMINALS
    }

    fn nullable(&self) -> Vec<bool> {
        let mut nullable = vec![false; self.of.len()];
        loop {
            let mut changed = false;
            for production in &self.productions {
                let head = usize::from(production.head);
                if !nullable[head] && production.body.iter().all(|s| nullable[usize::from(*s)]) {
                    nullable[head] = true;
                    changed = true;
                }
            }
            if !changed {
                return nullable;
            }
        }
    }
}

/// A production and how many of its symbols were read.
type Item = (u16, u16);

struct Automaton {
    /// Per state: its items, closed.
    items: Vec<BTreeSet<Item>>,
    transitions: Vec<HashMap<Symbol, State>>,
}

impl Automaton {
    fn build(grammar: &Grammar) -> Self {
        let start: BTreeSet<Item> = BTreeSet::from([(0, 0)]);
        let mut numbers: HashMap<BTreeSet<Item>, State> = HashMap::from([(start.clone(), 0)]);
        let mut kernels = vec![start];
        let mut automaton = Self { items: Vec::new(), transitions: Vec::new() };
        while let Some(kernel) = kernels.get(automaton.items.len()) {
            let items = close(grammar, kernel);
            let mut next: BTreeMap<Symbol, BTreeSet<Item>> = BTreeMap::new();
            for &(production, dot) in &items {
                if let Some(symbol) = grammar.productions[usize::from(production)].body.get(usize::from(dot)) {
                    next.entry(*symbol).or_default().insert((production, dot + 1));
                }
            }
            let mut transitions = HashMap::new();
            for (symbol, kernel) in next {
                let state = *numbers.entry(kernel).or_insert_with_key(|kernel| {
                    kernels.push(kernel.clone());
                    (kernels.len() - 1) as State
                });
                transitions.insert(symbol, state);
            }
            automaton.items.push(items);
            automaton.transitions.push(transitions);
        }
        automaton
    }

    /// For every state and production completed in it: the tokens it is completed for.
    fn lookaheads(&self, grammar: &Grammar) -> HashMap<(usize, u16), Terminals> {
        let nullable = grammar.nullable();
        // The transitions by a non-terminal, and for each what can directly follow.
        let mut numbers: HashMap<(usize, Symbol), usize> = HashMap::new();
        let mut follow: Vec<Terminals> = Vec::new();
        for (state, transitions) in self.transitions.iter().enumerate() {
            for (&symbol, &target) in transitions.iter().filter(|(s, _)| !Grammar::is_terminal(**s)) {
                numbers.insert((state, symbol), follow.len());
                let mut direct = Terminals::default();
                for &next in self.transitions[usize::from(target)].keys().filter(|s| Grammar::is_terminal(**s)) {
                    direct.insert(next);
                }
                let start = &grammar.productions[0];
                if state == 0 && start.body.first() == Some(&symbol) {
                    direct.insert(Kind::End as Symbol);
                }
                follow.push(direct);
            }
        }
        let mut reads: Vec<Vec<usize>> = vec![Vec::new(); follow.len()];
        let mut includes: Vec<Vec<usize>> = vec![Vec::new(); follow.len()];
        let mut lookback: Vec<((usize, u16), usize)> = Vec::new();
        for (&(state, symbol), &transition) in &numbers {
            let target = usize::from(self.transitions[state][&symbol]);
            for &next in self.transitions[target].keys().filter(|s| nullable[usize::from(**s)]) {
                reads[transition].push(numbers[&(target, next)]);
            }
            for &production in &grammar.of[usize::from(symbol)] {
                let body = &grammar.productions[usize::from(production)].body;
                let mut at = state;
                for (i, &part) in body.iter().enumerate() {
                    if !Grammar::is_terminal(part) && body[i + 1..].iter().all(|s| nullable[usize::from(*s)]) {
                        includes[numbers[&(at, part)]].push(transition);
                    }
                    at = usize::from(self.transitions[at][&part]);
                }
                lookback.push(((at, production), transition));
            }
        }
        spread(&mut follow, &reads);
        spread(&mut follow, &includes);
        let mut lookaheads: HashMap<(usize, u16), Terminals> = HashMap::new();
        for (completion, transition) in lookback {
            let set = lookaheads.entry(completion).or_default();
            *set = set.union(follow[transition]);
        }
        let mut end = Terminals::default();
        end.insert(Kind::End as Symbol);
        lookaheads.insert((usize::from(self.transitions[0][&grammar.productions[0].body[0]]), 0), end);
        lookaheads
    }

    /// The actions of a state, and its default.
    fn row(
        &self,
        grammar: &Grammar,
        state: usize,
        transitions: &HashMap<Symbol, State>,
        lookaheads: &HashMap<(usize, u16), Terminals>,
    ) -> (BTreeMap<Kind, Action>, Option<u16>) {
        let mut row: BTreeMap<Kind, Action> = BTreeMap::new();
        for (&symbol, &target) in transitions.iter().filter(|(s, _)| Grammar::is_terminal(**s)) {
            row.insert(Kind::ALL[usize::from(symbol)], Action::Shift(target));
        }
        let complete =
            |&&(production, dot): &&Item| grammar.productions[usize::from(production)].body.len() == usize::from(dot);
        let mut taken: BTreeMap<u16, Terminals> = BTreeMap::new();
        for &(production, _) in self.items[state].iter().filter(complete) {
            let lookahead = lookaheads.get(&(state, production)).copied().unwrap_or_default();
            for (number, &kind) in Kind::ALL.iter().enumerate().filter(|(number, _)| lookahead.contains(*number)) {
                let symbol = number as Symbol;
                let reduces = match row.get(&kind) {
                    None => true,
                    Some(Action::Shift(_)) => {
                        let token = grammar.precedence.get(&symbol);
                        match (grammar.productions[usize::from(production)].precedence, token) {
                            (Some((rule, _)), Some((token, associativity))) => {
                                rule > *token || (rule == *token && *associativity == Associativity::Left)
                            }
                            _ => false,
                        }
                    }
                    // Productions come in the order of the grammar: the first one keeps the token.
                    Some(_) => false,
                };
                if reduces {
                    row.insert(kind, if production == 0 { Action::Accept } else { Action::Reduce(production) });
                    taken.entry(production).or_default().insert(symbol);
                }
            }
        }
        // The most frequent one; of equals the one with the earliest token.
        let default = taken
            .iter()
            .filter(|(production, _)| **production != 0)
            .max_by_key(|(_, tokens)| (tokens.len(), std::cmp::Reverse(tokens.0.trailing_zeros())))
            .map(|(production, _)| *production);
        row.retain(|_, action| default.is_none_or(|default| *action != Action::Reduce(default)));
        (row, default)
    }
}

fn close(grammar: &Grammar, kernel: &BTreeSet<Item>) -> BTreeSet<Item> {
    let mut items = kernel.clone();
    let mut todo: Vec<Item> = kernel.iter().copied().collect();
    while let Some((production, dot)) = todo.pop() {
        if let Some(symbol) = grammar.productions[usize::from(production)].body.get(usize::from(dot)) {
            for &production in &grammar.of[usize::from(*symbol)] {
                if items.insert((production, 0)) {
                    todo.push((production, 0));
                }
            }
        }
    }
    items
}

/// Makes every set contain the sets it depends on.
fn spread(sets: &mut [Terminals], depends_on: &[Vec<usize>]) {
    loop {
        let mut changed = false;
        for (i, others) in depends_on.iter().enumerate() {
            let union = others.iter().fold(sets[i], |set, other| set.union(sets[*other]));
            changed |= union != sets[i];
            sets[i] = union;
        }
        if !changed {
            return;
        }
    }
}
