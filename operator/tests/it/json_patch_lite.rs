//! As much of RFC 6902 as finalizers need: test, add, remove, replace.

use serde::Deserialize;
use serde_json::Value;

pub type Patch = Vec<Operation>;

#[derive(Deserialize)]
pub struct Operation {
    op: String,
    path: String,
    #[serde(default)]
    value: Value,
}

pub fn apply(target: &mut Value, patch: &Patch) -> Result<(), String> {
    for Operation { op, path, value } in patch {
        match op.as_str() {
            "test" if target.pointer(path).unwrap_or(&Value::Null) == value => {}
            "test" => return Err(format!("test of {path} failed")),
            "add" | "replace" => {
                let (parent, key) = path.rsplit_once('/').unwrap();
                let parent = target.pointer_mut(parent).ok_or("no parent")?;
                match parent {
                    Value::Array(items) if key == "-" => items.push(value.clone()),
                    Value::Array(items) => items[key.parse::<usize>().unwrap()] = value.clone(),
                    parent => parent[key.replace("~1", "/")] = value.clone(),
                }
            }
            "remove" => {
                let (parent, key) = path.rsplit_once('/').unwrap();
                match target.pointer_mut(parent).ok_or("no parent")? {
                    Value::Array(items) => {
                        items.remove(key.parse::<usize>().unwrap());
                    }
                    parent => {
                        parent.as_object_mut().unwrap().remove(&key.replace("~1", "/"));
                    }
                }
            }
            other => return Err(format!("{other} is not in this fake")),
        }
    }
    Ok(())
}
