//! Texts that stand in every line that matches, put together from the parts of a pattern.
//!
//! Invariants:
//! * [`Texts`] are alternatives: at least one stands in the line. If they are of any case they are in ASCII lower case, and stand in
//!   the line in ASCII lower case; characters beyond ASCII are never folded, each of their cases is an alternative of its own.
//! * [`Facts`] of a part of a pattern hold wherever the part matches; joining two takes for granted that their matches touch.
//! * Everything is bounded: what would become too much is cut into several texts or forgotten, so that less is known but nothing wrong.

/// Most alternatives that are written out.
pub(crate) const MAX_TEXTS: usize = 128;
/// Most alternatives that may come of joining two parts: `(a|b)(c|d)` are four.
const MAX_PRODUCT: usize = 16;
/// Most bytes of all alternatives together.
pub(crate) const MAX_BYTES: usize = 8 << 10;
/// Most texts of one pattern that must all stand in the line.
const MAX_CLAUSES: usize = 8;
/// Parts of patterns that are shorter are not worth a look, in bytes.
const MIN_BYTES: usize = 3;

/// Texts of which at least one stands in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Texts {
    texts: Vec<Vec<u8>>,
    any_case: bool,
}

impl Texts {
    /// The empty text, which stands everywhere.
    fn nothing() -> Self {
        Self { texts: vec![Vec::new()], any_case: false }
    }

    /// One text, or as much of its beginning as may be.
    pub(crate) fn one(text: &[u8]) -> Self {
        Self { texts: vec![text[..text.len().min(MAX_BYTES)].to_vec()], any_case: false }
    }

    /// One of these characters; none if there are none or more than `max` of them are different. Both cases of an ASCII letter are one.
    pub(crate) fn chars(chars: &[char], max: usize) -> Option<Self> {
        let both_cases = |c: &char| c.is_ascii_lowercase() && chars.contains(&c.to_ascii_uppercase());
        let mut texts = Self { texts: chars.iter().map(|c| c.to_string().into_bytes()).collect(), any_case: false };
        if chars.iter().any(both_cases) {
            texts.fold();
        }
        texts.dedup();
        (!texts.texts.is_empty() && texts.texts.len() <= max).then_some(texts)
    }

    /// The alternatives, and whether they are of any case.
    pub(crate) fn into_parts(self) -> (Vec<Vec<u8>>, bool) {
        (self.texts, self.any_case)
    }

    /// Forgets the case of ASCII letters.
    fn fold(&mut self) {
        if !self.any_case {
            self.any_case = true;
            self.texts.iter_mut().for_each(|text| text.make_ascii_lowercase());
            self.dedup();
        }
    }

    fn dedup(&mut self) {
        if self.texts.len() > 1 {
            self.texts.sort_unstable();
            self.texts.dedup();
        }
    }

    fn bytes(&self) -> usize {
        self.texts.iter().map(Vec::len).sum()
    }

    /// How much they tell: that of the shortest alternative in bytes, and of as few alternatives as may be.
    fn strength(&self) -> (usize, std::cmp::Reverse<usize>) {
        (self.texts.iter().map(Vec::len).min().unwrap_or(0), std::cmp::Reverse(self.texts.len()))
    }

    /// Every alternative of these followed by every one of the others; both are given back if that is too much.
    fn followed_by(mut self, mut other: Self) -> Result<Self, (Self, Self)> {
        let texts = self.texts.len() * other.texts.len();
        let bytes = self.bytes() * other.texts.len() + other.bytes() * self.texts.len();
        // One alternative more or less on one side does not multiply anything.
        let multiplies = self.texts.len() > 1 && other.texts.len() > 1;
        if texts > if multiplies { MAX_PRODUCT } else { MAX_TEXTS } || bytes > MAX_BYTES {
            return Err((self, other));
        }
        if self.any_case != other.any_case {
            self.fold();
            other.fold();
        }
        if let [tail] = &other.texts[..] {
            self.texts.iter_mut().for_each(|head| head.extend_from_slice(tail));
        } else {
            let joined = self.texts.iter().flat_map(|head| other.texts.iter().map(|tail| [&head[..], tail].concat()));
            self.texts = joined.collect();
            self.dedup();
        }
        Ok(self)
    }

    /// These or the others; none if they are too many.
    fn or(mut self, mut other: Self) -> Option<Self> {
        if self.any_case != other.any_case {
            self.fold();
            other.fold();
        }
        self.texts.append(&mut other.texts);
        // Sorted at the end: alternations are long.
        if self.texts.len() > MAX_TEXTS || self.bytes() > MAX_BYTES {
            self.dedup();
        }
        (self.texts.len() <= MAX_TEXTS && self.bytes() <= MAX_BYTES).then_some(self)
    }

    /// Leaves out alternatives that hold another one.
    fn minimise(&mut self) {
        self.dedup();
        let texts = std::mem::take(&mut self.texts);
        let holds_another = |text: &Vec<u8>| texts.iter().any(|t| t != text && contains(text, t));
        self.texts = texts.iter().filter(|text| !holds_another(text)).cloned().collect();
    }

    /// Whether a line with one of these has one of the others as well.
    fn imply(&self, other: &Self) -> bool {
        let has = |text: &Vec<u8>| {
            if other.any_case && !self.any_case {
                let text = text.to_ascii_lowercase();
                return other.texts.iter().any(|t| contains(&text, t));
            }
            other.texts.iter().any(|t| contains(text, t))
        };
        (other.any_case || !self.any_case) && self.texts.iter().all(has)
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// What is known of the text that a part of a pattern matches.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    ends: Ends,
    /// Somewhere within the text, each of them. The ends are not among them.
    within: Vec<Texts>,
}

#[derive(Clone, Debug)]
enum Ends {
    /// The text is one of these.
    Exact(Texts),
    /// What it begins and ends with.
    Open(Texts, Texts),
}

impl Facts {
    /// Nothing is known.
    pub(crate) fn unknown() -> Self {
        Self { ends: Ends::Open(Texts::nothing(), Texts::nothing()), within: Vec::new() }
    }

    /// The text is one of these.
    pub(crate) fn exact(texts: Texts) -> Self {
        Self { ends: Ends::Exact(texts), within: Vec::new() }
    }

    /// The text is empty.
    pub(crate) fn empty() -> Self {
        Self::exact(Texts::nothing())
    }

    /// The text is this one.
    pub(crate) fn literal(text: &[u8]) -> Self {
        if text.len() <= MAX_BYTES {
            return Self::exact(Texts::one(text));
        }
        let end = Texts::one(&text[text.len() - MAX_BYTES..]);
        Self { ends: Ends::Open(Texts::one(text), end), within: Vec::new() }
    }

    /// A text followed by another.
    pub(crate) fn then(mut self, other: Self) -> Self {
        for clause in other.within {
            self.add(clause);
        }
        self.ends = match (self.ends, other.ends) {
            (Ends::Exact(left), Ends::Exact(right)) => match left.followed_by(right) {
                Ok(both) => Ends::Exact(both),
                Err((left, right)) => Ends::Open(left, right),
            },
            (Ends::Exact(left), Ends::Open(start, end)) => match left.followed_by(start) {
                Ok(start) => Ends::Open(start, end),
                Err((left, start)) => {
                    add(&mut self.within, start);
                    Ends::Open(left, end)
                }
            },
            (Ends::Open(start, end), Ends::Exact(right)) => match end.followed_by(right) {
                Ok(end) => Ends::Open(start, end),
                Err((end, right)) => {
                    add(&mut self.within, end);
                    Ends::Open(start, right)
                }
            },
            (Ends::Open(start, left), Ends::Open(right, end)) => {
                match left.followed_by(right) {
                    Ok(both) => add(&mut self.within, both),
                    Err((left, right)) => {
                        add(&mut self.within, left);
                        add(&mut self.within, right);
                    }
                }
                Ends::Open(start, end)
            }
        };
        self
    }

    /// One of these texts.
    pub(crate) fn any(branches: impl IntoIterator<Item = Self>) -> Self {
        let mut exact = Some(None);
        let mut ends = Some(None);
        let mut within = Some(None);
        for branch in branches {
            let (start, end) = match &branch.ends {
                Ends::Exact(texts) => {
                    exact = exact.and_then(|known| either(known, texts.clone()));
                    (texts, texts)
                }
                Ends::Open(start, end) => {
                    exact = None;
                    (start, end)
                }
            };
            ends = ends.and_then(|known| match known {
                None => Some(Some((start.clone(), end.clone()))),
                Some((starts, ends)) => Some(Some((Texts::or(starts, start.clone())?, Texts::or(ends, end.clone())?))),
            });
            within = within.and_then(|known| either(known, best(branch.into_clauses())?));
        }
        if let Some(Some(texts)) = exact {
            return Self::exact(texts);
        }
        let (start, end) = ends.flatten().unwrap_or_else(|| (Texts::nothing(), Texts::nothing()));
        Self { ends: Ends::Open(start, end), within: within.flatten().into_iter().collect() }
    }

    /// The text so often in a row.
    pub(crate) fn repeated(self, min: u32, max: Option<u32>) -> Self {
        let texts = match self.ends {
            _ if min == 0 && max != Some(1) => return Self::unknown(),
            _ if min == 0 => return Self::any([self, Self::empty()]),
            // Each end stands there at least once.
            Ends::Open(..) => return self,
            Ends::Exact(texts) => texts,
        };
        let mut row = texts.clone();
        let mut count = 1;
        while count < min && row.bytes() > 0 {
            match row.followed_by(texts.clone()) {
                Ok(longer) => row = longer,
                Err((longest, _)) => {
                    row = longest;
                    break;
                }
            }
            count += 1;
        }
        if row.bytes() == 0 || (count == min && max == Some(min)) {
            return Self::exact(row);
        }
        Self { ends: Ends::Open(row.clone(), row), within: Vec::new() }
    }

    fn add(&mut self, clause: Texts) {
        add(&mut self.within, clause);
    }

    /// What stands in the text, the ends included.
    fn into_clauses(mut self) -> Vec<Texts> {
        match self.ends {
            Ends::Exact(texts) => add(&mut self.within, texts),
            Ends::Open(start, end) => {
                add(&mut self.within, start);
                add(&mut self.within, end);
            }
        }
        self.within
    }

    /// What stands in the text, each of them, without what follows from the others.
    pub(crate) fn finish(self) -> Vec<Texts> {
        let mut clauses = self.into_clauses();
        clauses.iter_mut().for_each(Texts::minimise);
        without_implied(clauses)
    }
}

/// Leaves out what follows from what is left.
pub(crate) fn without_implied(mut clauses: Vec<Texts>) -> Vec<Texts> {
    let mut index = 0;
    while index < clauses.len() {
        let implied = |(other, texts): (usize, &Texts)| {
            // A comparison of long lists is not worth its time.
            let short = texts.texts.len() * clauses[index].texts.len() <= 4 * MAX_TEXTS;
            other != index && short && texts.imply(&clauses[index])
        };
        if clauses.iter().enumerate().any(implied) {
            clauses.remove(index);
        } else {
            index += 1;
        }
    }
    clauses
}

/// Leaves out what tells least, so that `max` are left.
pub(crate) fn keep_best(clauses: &mut Vec<Texts>, max: usize) {
    clauses.sort_by_key(|texts| std::cmp::Reverse(texts.strength()));
    clauses.truncate(max);
}

/// What tells most.
fn best(clauses: Vec<Texts>) -> Option<Texts> {
    clauses.into_iter().max_by_key(Texts::strength)
}

fn either(known: Option<Texts>, texts: Texts) -> Option<Option<Texts>> {
    match known {
        None => Some(Some(texts)),
        Some(known) => known.or(texts).map(Some),
    }
}

/// Takes in what tells enough, at the cost of what tells least.
fn add(clauses: &mut Vec<Texts>, texts: Texts) {
    if texts.strength().0 < MIN_BYTES {
        return;
    }
    if clauses.len() < MAX_CLAUSES {
        clauses.push(texts);
    } else if let Some(weakest) = clauses.iter_mut().min_by_key(|t| t.strength())
        && weakest.strength() < texts.strength()
    {
        *weakest = texts;
    }
}

/// What holds if one of several lists of texts, all of which must stand in the line, holds: the best of each.
pub(crate) fn any_of(lists: impl IntoIterator<Item = Vec<Texts>>) -> Vec<Texts> {
    let mut texts = None;
    for list in lists {
        let Some(Some(more)) = best(list).map(|best| either(texts, best)) else { return Vec::new() };
        texts = more;
    }
    if let Some(texts) = &mut texts {
        texts.minimise();
    }
    texts.into_iter().collect()
}
