//! Reads Rust source just far enough to know which paths it names, so that walls between modules can be tests.
//!
//! ```text
//! text ─► tokens (comments and literals are gone) ─► paths (`use` trees spelled out, `super` resolved)
//! ```
//!
//! It is no parser: it knows tokens, braces and the grammar of `use`. What it cannot see (a path that a macro pastes
//! together) the compiler's own privacy rules have to catch.

/// One word, number or punctuation mark of a source file. `::` is one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its text; a string, character or number literal is the single text `"`.
    pub(crate) text: String,
    /// Its line, counted from 1.
    pub(crate) line: usize,
}

/// A path as the source names it, from its root, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedPath {
    /// Segments from the root. A path inside the crate starts with `crate`, whatever mix of `self` and `super` it was
    /// written with; any other first segment is a crate or something local.
    pub(crate) segments: Vec<String>,
    /// The line of the first segment, counted from 1.
    pub(crate) line: usize,
    /// Whether it stands in code under `#[cfg(test)]`.
    pub(crate) in_tests: bool,
}

/// Splits source into tokens without comments and without the content of literals.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, line: 1, found: Vec::new() };
    lexer.run();
    lexer.found
}

/// Every path of two segments or more in `tokens`, and every path that a `use` names.
///
/// `module` is the module that the file is, from the crate's root: `["front", "ws"]` for `src/front/ws.rs`.
pub(crate) fn paths(tokens: &[Token], module: &[&str]) -> Vec<NamedPath> {
    let mut scan = PathScan { tokens, module, tests: test_regions(tokens), inline: Vec::new(), found: Vec::new() };
    scan.run();
    scan.found
}

/// Names of the modules that are declared as files (`mod name;`), each with whether it is under `#[cfg(test)]`.
pub(crate) fn declared_modules(tokens: &[Token]) -> Vec<(String, bool)> {
    let tests = test_regions(tokens);
    let declarations = tokens.windows(3).enumerate().filter(|(_, w)| w[0].text == "mod" && w[2].text == ";");
    declarations.map(|(at, w)| (w[1].text.clone(), in_regions(&tests, at))).collect()
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    found: Vec<Token>,
}

impl Lexer {
    fn run(&mut self) {
        while let Some(c) = self.peek(0) {
            match c {
                '/' if self.peek(1) == Some('/') => self.skip_while(|c| c != '\n'),
                '/' if self.peek(1) == Some('*') => self.skip_block_comment(),
                '"' => self.quoted('"'),
                '\'' => self.quote_mark(),
                c if c.is_alphabetic() || c == '_' => self.word(),
                c if c.is_ascii_digit() => self.number(),
                c if c.is_whitespace() => self.step(),
                ':' if self.peek(1) == Some(':') => self.mark("::"),
                c => self.mark(&c.to_string()),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn step(&mut self) {
        if self.peek(0) == Some('\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    fn skip_while(&mut self, keep_on: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&keep_on) {
            self.step();
        }
    }

    fn push(&mut self, text: &str, line: usize) {
        self.found.push(Token { text: text.to_owned(), line });
    }

    fn mark(&mut self, text: &str) {
        self.push(text, self.line);
        text.chars().for_each(|_| self.step());
    }

    /// Block comments nest in Rust.
    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                _ => {
                    self.step();
                    continue;
                }
            }
            self.step();
            self.step();
            if depth == 0 {
                return;
            }
        }
    }

    /// A literal with escapes, from its opening quote on.
    fn quoted(&mut self, quote: char) {
        self.push("\"", self.line);
        self.step();
        while let Some(c) = self.peek(0) {
            self.step();
            if c == '\\' {
                self.step();
            } else if c == quote {
                return;
            }
        }
    }

    /// `'a'` and `'\n'` are characters, `'a` is a lifetime, which names nothing and is dropped.
    fn quote_mark(&mut self) {
        if self.peek(1) == Some('\\') || self.peek(2) == Some('\'') {
            return self.quoted('\'');
        }
        self.step();
        self.skip_while(|c| c.is_alphanumeric() || c == '_');
    }

    fn word(&mut self) {
        let (start, line) = (self.at, self.line);
        self.skip_while(|c| c.is_alphanumeric() || c == '_');
        let word: String = self.chars[start..self.at].iter().collect();
        match (word.as_str(), self.peek(0)) {
            ("b" | "c", Some('"')) => self.quoted('"'),
            ("b", Some('\'')) => self.quoted('\''),
            ("r" | "br" | "cr", Some('"' | '#')) if self.is_raw_literal() => self.raw_literal(),
            ("r", Some('#')) => self.step(), // a raw identifier: its name follows as a word of its own
            _ => self.push(&word, line),
        }
    }

    fn is_raw_literal(&self) -> bool {
        let hashes = (0..).take_while(|ahead| self.peek(*ahead) == Some('#')).count();
        self.peek(hashes) == Some('"')
    }

    fn raw_literal(&mut self) {
        self.push("\"", self.line);
        let mut hashes = 0;
        while self.peek(0) == Some('#') {
            hashes += 1;
            self.step();
        }
        self.step();
        while self.at < self.chars.len() {
            let closes = self.peek(0) == Some('"') && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#'));
            self.step();
            if closes {
                (0..hashes).for_each(|_| self.step());
                return;
            }
        }
    }

    /// A number, with its suffix and its fraction, but not the dots of a range.
    fn number(&mut self) {
        self.push("\"", self.line);
        self.skip_while(|c| c.is_alphanumeric() || c == '_');
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            self.step();
            self.skip_while(|c| c.is_alphanumeric() || c == '_');
        }
    }
}

struct PathScan<'a> {
    tokens: &'a [Token],
    module: &'a [&'a str],
    tests: Vec<(usize, usize)>,
    /// Inline modules that are open at this token: name, and the token at which each ends.
    inline: Vec<(String, usize)>,
    found: Vec<NamedPath>,
}

impl PathScan<'_> {
    fn run(&mut self) {
        let mut at = 0;
        while at < self.tokens.len() {
            self.inline.retain(|(_, end)| at < *end);
            at = match self.text(at) {
                "use" => self.use_tree(at + 1, &[]),
                "mod" if self.text(at + 2) == "{" => {
                    self.inline.push((self.text(at + 1).to_owned(), closing_brace(self.tokens, at + 2)));
                    at + 3
                }
                word if is_word(word) && !self.continues_a_path(at) => self.plain_path(at),
                _ => at + 1,
            };
        }
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    /// Whether the word at `at` is a later segment of a path, a field or a method.
    fn continues_a_path(&self, at: usize) -> bool {
        let before = |back: usize| at.checked_sub(back).map_or("", |at| self.text(at));
        match before(1) {
            "." => before(2) != ".", // `..name` is a range or a rest pattern
            "::" => is_word(before(2)) || before(2) == ">",
            _ => false,
        }
    }

    /// Reads `a::b::c` and returns the token after it.
    fn plain_path(&mut self, start: usize) -> usize {
        let mut segments = vec![self.text(start).to_owned()];
        let mut at = start + 1;
        while self.text(at) == "::" && is_word(self.text(at + 1)) {
            segments.push(self.text(at + 1).to_owned());
            at += 2;
        }
        if segments.len() > 1 {
            self.record(segments, start);
        }
        at
    }

    /// Reads one tree of a `use` below `prefix` and returns the token after it.
    fn use_tree(&mut self, start: usize, prefix: &[String]) -> usize {
        let mut segments = prefix.to_vec();
        let mut at = start;
        loop {
            match self.text(at) {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while !matches!(self.text(at), "}" | "") {
                        let next = self.use_tree(at, &segments);
                        at = if next == at || self.text(next) == "," { next + 1 } else { next };
                    }
                    return at + 1;
                }
                "as" => {
                    self.record(segments, start);
                    return at + 2;
                }
                "*" => {
                    segments.push("*".to_owned());
                    self.record(segments, start);
                    return at + 1;
                }
                word if is_word(word) => {
                    segments.push(word.to_owned());
                    at += 1;
                }
                // The end of this tree. `impl Trait + use<'a>` is no import and has named nothing so far.
                _ => {
                    if segments.len() > prefix.len() {
                        self.record(segments, start);
                    }
                    return at;
                }
            }
        }
    }

    fn record(&mut self, segments: Vec<String>, at: usize) {
        let segments = self.rooted(segments);
        let in_tests = in_regions(&self.tests, at);
        self.found.push(NamedPath { segments, line: self.tokens[at].line, in_tests });
    }

    /// Turns `self::` and `super::` into a path from `crate`.
    fn rooted(&self, segments: Vec<String>) -> Vec<String> {
        if !matches!(segments[0].as_str(), "self" | "super") {
            return segments;
        }
        let mut here: Vec<String> = self.module.iter().map(|name| (*name).to_owned()).collect();
        here.extend(self.inline.iter().map(|(name, _)| name.clone()));
        let steps = segments.iter().take_while(|segment| matches!(segment.as_str(), "self" | "super")).count();
        for _ in segments[..steps].iter().filter(|segment| *segment == "super") {
            here.pop();
        }
        std::iter::once("crate".to_owned()).chain(here).chain(segments[steps..].iter().cloned()).collect()
    }
}

/// Token ranges of items under `#[cfg(test)]`, each from its attribute to its closing brace or semicolon.
fn test_regions(tokens: &[Token]) -> Vec<(usize, usize)> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let opens_at = |(_, w): &(usize, &[Token])| w.iter().map(|token| token.text.as_str()).eq(ATTRIBUTE);
    let starts = tokens.windows(ATTRIBUTE.len()).enumerate().filter(opens_at).map(|(at, _)| at);
    starts.map(|start| (start, end_of_item(tokens, start + ATTRIBUTE.len()))).collect()
}

fn end_of_item(tokens: &[Token], start: usize) -> usize {
    let ends = |token: &Token| matches!(token.text.as_str(), "{" | ";");
    match tokens[start..].iter().position(ends).map(|ahead| start + ahead) {
        Some(at) if tokens[at].text == "{" => closing_brace(tokens, at),
        Some(at) => at + 1,
        None => tokens.len(),
    }
}

/// The token after the brace that closes the one at `open`.
fn closing_brace(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn in_regions(regions: &[(usize, usize)], at: usize) -> bool {
    regions.iter().any(|(start, end)| (*start..*end).contains(&at))
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
