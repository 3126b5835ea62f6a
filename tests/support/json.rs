//! A strict reader of JSON (RFC 8259), small enough to be believed.

/// A value. Numbers are kept as floating point, members in their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses all of `text`; `None` when it is not exactly one value.
    pub fn parse(text: &str) -> Option<Json> {
        let mut reader = Reader { rest: text };
        let value = reader.value()?;
        reader.rest.is_empty().then_some(value)
    }

    /// The member of this name; fails the test when there is none.
    pub fn get(&self, name: &str) -> &Json {
        let Json::Object(members) = self else {
            panic!("{self:?} is no object");
        };
        let mut found = members.iter().filter(|(member, _)| member == name);
        let (_, value) = found
            .next()
            .unwrap_or_else(|| panic!("no {name} in {self:?}"));
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        value
    }

    /// The names of the members, in order, with a blank between them.
    pub fn names(&self) -> String {
        let Json::Object(members) = self else {
            panic!("{self:?} is no object");
        };
        let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
        names.join(" ")
    }

    pub fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Json::Text(text) => text,
            other => panic!("{name} is {other:?} in {self:?}"),
        }
    }

    pub fn number(&self, name: &str) -> f64 {
        match self.get(name) {
            Json::Number(number) => *number,
            other => panic!("{name} is {other:?} in {self:?}"),
        }
    }

    pub fn is_null(&self, name: &str) -> bool {
        *self.get(name) == Json::Null
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn take(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn value(&mut self) -> Option<Json> {
        match self.rest.bytes().next()? {
            b'n' => self.take("null").map(|()| Json::Null),
            b't' => self.take("true").map(|()| Json::Bool(true)),
            b'f' => self.take("false").map(|()| Json::Bool(false)),
            b'"' => self.string().map(Json::Text),
            b'[' => self
                .sequence("[", "]", |reader| reader.value())
                .map(Json::List),
            b'{' => {
                let member = |reader: &mut Self| {
                    let name = reader.string()?;
                    reader.take(":")?;
                    Some((name, reader.value()?))
                };
                self.sequence("{", "}", member).map(Json::Object)
            }
            _ => self.number(),
        }
    }

    /// Without blanks: the audit writes none.
    fn sequence<T>(
        &mut self,
        open: &str,
        close: &str,
        item: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.take(open)?;
        let mut items = Vec::new();
        if self.take(close).is_some() {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(close).is_some() {
                return Some(items);
            }
            self.take(",")?;
        }
    }

    fn number(&mut self) -> Option<Json> {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let digits = number.strip_prefix('-').unwrap_or(number);
        let zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
        if !digits.starts_with(|c: char| c.is_ascii_digit()) || zero || digits.ends_with('.') {
            return None;
        }
        self.rest = rest;
        number.parse().ok().map(Json::Number)
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut units: Vec<u16> = Vec::new();
        loop {
            let c = self.rest.chars().next()?;
            self.rest = &self.rest[c.len_utf8()..];
            match c {
                '"' => return String::from_utf16(&units).ok(),
                '\\' => {
                    let escape = self.rest.chars().next()?;
                    self.rest = &self.rest[escape.len_utf8()..];
                    let unit = match escape {
                        '"' | '\\' | '/' => escape as u16,
                        'b' => 8,
                        'f' => 12,
                        'n' => 10,
                        'r' => 13,
                        't' => 9,
                        'u' => {
                            let digits = self.rest.get(..4)?;
                            self.rest = &self.rest[4..];
                            let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
                            u16::from_str_radix(digits, 16).ok().filter(|_| hex)?
                        }
                        _ => return None,
                    };
                    units.push(unit);
                }
                '\0'..='\x1f' => return None,
                c => units.extend_from_slice(c.encode_utf16(&mut [0; 2])),
            }
        }
    }
}
