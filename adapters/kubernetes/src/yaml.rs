//! A manifest as a YAML stream for people and `kubectl create`. Owns the order of keys; the writing is a crate's.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

/// Keys that come first, in this order; all others follow by name.
const FIRST: [&str; 5] = ["apiVersion", "kind", "metadata", "name", "namespace"];

/// Objects as a stream, `---` before each but the first.
pub(crate) fn stream(objects: &[&Value]) -> String {
    let texts = objects.iter().map(|object| {
        let text = serde_saphyr::to_string_with_options(&Ordered(object), options());
        text.expect("JSON has a YAML form")
    });
    texts.collect::<Vec<_>>().join("---\n")
}

/// No folded texts: a variable's value stays on its line. Words that only older readers take for a number or a truth are quoted.
fn options() -> serde_saphyr::SerializerOptions {
    serde_saphyr::ser_options! { prefer_block_scalars: false }
}

/// A value whose keys are written in the order that people look for them.
struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => {
                let mut keys: Vec<&String> = map.keys().collect();
                keys.sort_by_key(|key| (FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()), *key));
                let mut out = serializer.serialize_map(Some(keys.len()))?;
                for key in keys {
                    out.serialize_entry(key, &Ordered(&map[key]))?;
                }
                out.end()
            }
            Value::Array(items) => {
                let mut out = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    out.serialize_element(&Ordered(item))?;
                }
                out.end()
            }
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_that_look_like_something_else_stay_texts() {
        let words = [
            "no",
            "y",
            "on",
            "1",
            "1e3",
            "0x1F",
            "1:30",
            "~",
            "null",
            "",
            " a",
            "- b",
            "a: b",
            "#c",
            "{}",
            "a\nb\n",
            "\u{e9}",
            "2026-01-01",
            ".5",
            "0o17",
            "+1",
            "yes",
            "True",
            "%a",
            "@b",
            "`",
            "a\tb",
            "'",
            "\"",
            "---",
            "...",
            "<<",
            "=",
            "1_000",
            "!x",
            "&x",
            "*x",
            "|",
            ">",
        ];
        let object = json!({ "apiVersion": "v1", "metadata": { "words": words.to_vec(), "1": "2", "on": "off" } });
        let text = stream(&[&object]);
        let back: Value = serde_saphyr::from_str(&text).expect("it is YAML");
        assert_eq!(back, object, "{text}");
        for word in ["no", "y", "on", "1:30", "1_000", "0o17", "yes", "off"] {
            assert!(
                text.contains(&format!("\"{word}\"")),
                "{word} is quoted for older readers: {text}"
            );
        }
    }

    #[test]
    fn keys_stand_where_people_look_for_them() {
        let object =
            json!({ "spec": { "a": [{ "image": "x", "name": "b" }] }, "kind": "K", "metadata": {}, "apiVersion": "v" });
        let text = stream(&[&object, &json!({ "kind": "L" })]);
        let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word} is in {text}"));
        let order = [
            "apiVersion",
            "kind: K",
            "metadata",
            "spec",
            "name: b",
            "image: x",
            "---\n",
            "kind: L",
        ];
        assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{text}");
    }
}
