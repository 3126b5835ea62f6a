//! Where a credential stands in a request, from the upstream's side: written without a look at the
//! broker's own code, so that the two check each other.

use super::key::{base64, form_decode};
use super::{Key, Recorded};

/// Where the credential has to stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Bearer,
    /// The user name, or the key alone as `USER:PASSWORD`.
    Basic(Option<&'static str>),
    Header(&'static str),
    /// A field's name, and its value with `{}` for the key.
    Template(&'static str, &'static str),
    Query(&'static str),
    Cookie(&'static str),
}

impl Place {
    /// As `--inject` takes it.
    pub fn inject(&self) -> String {
        match self {
            Place::Bearer => "bearer".into(),
            Place::Basic(None) => "basic".into(),
            Place::Basic(Some(user)) => format!("basic:{user}"),
            Place::Header(name) => format!("header:{name}"),
            Place::Template(name, template) => format!("header:{name}:{template}"),
            Place::Query(name) => format!("query:{name}"),
            Place::Cookie(name) => format!("cookie:{name}"),
        }
    }

    /// Every value that stands in this place in a request.
    pub fn found(&self, request: &Recorded) -> Vec<Vec<u8>> {
        let fields = |name: &str| {
            request
                .all(name)
                .iter()
                .map(|value| value.as_bytes().to_vec())
                .collect()
        };
        match self {
            Place::Bearer | Place::Basic(_) => fields("authorization"),
            Place::Header(name) | Place::Template(name, _) => fields(name),
            Place::Query(name) => {
                let query = request
                    .target
                    .split_once('?')
                    .map_or("", |(_, query)| query);
                let pairs = query
                    .split('&')
                    .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                pairs
                    .filter(|(n, _)| form_decode(n) == name.as_bytes())
                    .map(|(_, v)| form_decode(v))
                    .collect()
            }
            Place::Cookie(name) => {
                let all = request.all("cookie").join("; ");
                let pairs = all
                    .split(';')
                    .filter_map(|pair| pair.trim().split_once('='));
                pairs
                    .filter(|(n, _)| n == name)
                    .map(|(_, v)| v.as_bytes().to_vec())
                    .collect()
            }
        }
    }

    /// The value that has to stand there.
    pub fn value(&self, key: &Key) -> String {
        let key = key.as_str();
        match self {
            Place::Bearer => format!("Bearer {key}"),
            Place::Basic(None) => format!("Basic {}", base64(format!(":{key}").as_bytes())),
            Place::Basic(Some(user)) => {
                format!("Basic {}", base64(format!("{user}:{key}").as_bytes()))
            }
            Place::Template(_, template) => template.replace("{}", key),
            Place::Header(_) | Place::Query(_) | Place::Cookie(_) => key.to_owned(),
        }
    }
}
