//! The two schemas are one: the same migrations, and from them the same tables, read back from
//! live databases.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Connection as _, PgConnection, SqliteConnection};

use super::server::Database;
use crate::storage::Store;

/// A schema, as far as both databases can say it.
type Schema = BTreeMap<String, Table>;

/// Columns, what they refer to, on delete, on update.
type Foreign = (Vec<String>, String, Vec<String>, String, String);
/// Name, type, not null, collation, default.
type PgColumn = (String, String, bool, Option<String>, Option<String>);
/// Table, on delete, on update, columns here and there.
type PgForeign = (String, String, String, Vec<String>, Vec<String>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    /// In order: name, kind, whether it must have a value.
    columns: Vec<(String, &'static str, bool, Option<String>)>,
    primary: Vec<String>,
    /// Columns, and the words of the condition of a partial one.
    uniques: BTreeSet<(Vec<String>, Vec<String>)>,
    /// Named indexes: columns, whether unique.
    indexes: BTreeMap<String, (Vec<String>, bool)>,
    foreign: BTreeSet<Foreign>,
    /// The words of each condition.
    checks: BTreeSet<Vec<String>>,
}

/// The names and texts in a condition, sorted: what the databases write around them differs.
fn words(condition: &str) -> Vec<String> {
    const AROUND: &[&str] = &[
        "text", "any", "array", "in", "check", "where", "is", "and", "not",
    ];
    let mut words: Vec<String> = condition
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .map(str::to_lowercase)
        .filter(|word| !word.is_empty() && !AROUND.contains(&word.as_str()))
        .collect();
    words.sort();
    words.dedup();
    words
}

/// What stands in the brackets after a word.
fn bracketed(sql: &str, word: &str) -> Vec<String> {
    sql.split(word)
        .skip(1)
        .map(|rest| {
            let mut depth = 0;
            rest.chars()
                .take_while(|c| {
                    depth += i32::from(*c == '(') - i32::from(*c == ')');
                    depth > 0 || *c != ')'
                })
                .collect()
        })
        .collect()
}

async fn of_sqlite(db: &mut SqliteConnection) -> Schema {
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
         AND name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut *db)
    .await
    .unwrap();
    let mut schema = Schema::new();
    for (name, sql) in tables {
        assert!(sql.ends_with("STRICT"), "{name}");
        let mut table = Table::default();
        let columns: Vec<(String, String, bool, i64, Option<String>)> = sqlx::query_as(
            "SELECT name, type, \"notnull\", pk, dflt_value FROM pragma_table_info($1) ORDER BY cid",
        )
        .bind(&name)
        .fetch_all(&mut *db)
        .await
        .unwrap();
        let mut primary = Vec::new();
        for (column, kind, must, pk, default) in columns {
            let kind = match kind.as_str() {
                "TEXT" => "text",
                "INTEGER" => "integer",
                "BLOB" => "bytes",
                other => panic!("{name}.{column} is {other}"),
            };
            if pk > 0 {
                primary.push((pk, column.clone()));
            }
            table.columns.push((column, kind, must, default));
        }
        primary.sort();
        table.primary = primary.into_iter().map(|(_, column)| column).collect();
        let indexes: Vec<(String, bool, String)> =
            sqlx::query_as("SELECT name, \"unique\", origin FROM pragma_index_list($1)")
                .bind(&name)
                .fetch_all(&mut *db)
                .await
                .unwrap();
        for (index, unique, origin) in indexes {
            let columns: Vec<String> =
                sqlx::query_scalar("SELECT name FROM pragma_index_info($1) ORDER BY seqno")
                    .bind(&index)
                    .fetch_all(&mut *db)
                    .await
                    .unwrap();
            let text: Option<String> =
                sqlx::query_scalar("SELECT sql FROM sqlite_master WHERE name = $1")
                    .bind(&index)
                    .fetch_optional(&mut *db)
                    .await
                    .unwrap()
                    .flatten();
            let text = text.unwrap_or_default();
            let condition = text.split_once(" WHERE ").map_or("", |(_, rest)| rest);
            match origin.as_str() {
                "pk" => continue,
                "c" => _ = table.indexes.insert(index, (columns.clone(), unique)),
                _ => {}
            }
            if unique {
                table.uniques.insert((columns, words(condition)));
            }
        }
        let foreign: Vec<(i64, String, String, String, String, String)> = sqlx::query_as(
            "SELECT id, \"table\", \"from\", \"to\", on_delete, on_update \
             FROM pragma_foreign_key_list($1) ORDER BY id, seq",
        )
        .bind(&name)
        .fetch_all(&mut *db)
        .await
        .unwrap();
        let mut keys: BTreeMap<i64, Foreign> = BTreeMap::new();
        for (id, to, here, there, delete, update) in foreign {
            let key = keys
                .entry(id)
                .or_insert((vec![], to, vec![], delete, update));
            key.0.push(here);
            key.2.push(there);
        }
        table.foreign = keys.into_values().collect();
        table.checks = bracketed(&sql, "CHECK ")
            .iter()
            .map(|text| words(text))
            .collect();
        schema.insert(name, table);
    }
    schema
}

const PG_COLUMNS: &str = "SELECT c.column_name::text, c.data_type::text, c.is_nullable = 'NO', \
    c.collation_name::text, c.column_default FROM information_schema.columns c \
    WHERE c.table_schema = 'public' AND c.table_name = $1 ORDER BY c.ordinal_position";
const PG_INDEXES: &str = "SELECT i.relname::text, x.indisunique, x.indisprimary, \
    EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.oid AND k.contype = 'u'), \
    ARRAY(SELECT a.attname::text FROM unnest(x.indkey) WITH ORDINALITY AS u(n, o) \
        JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = u.n ORDER BY u.o), \
    COALESCE(pg_get_expr(x.indpred, x.indrelid), '') \
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid \
    WHERE x.indrelid = to_regclass($1)";
const PG_FOREIGN: &str = "SELECT k.confrelid::regclass::text, k.confdeltype::text, \
    k.confupdtype::text, \
    ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u(n, o) \
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.o), \
    ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u(n, o) \
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.o) \
    FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = to_regclass($1)";
const PG_CHECKS: &str = "SELECT pg_get_constraintdef(oid) FROM pg_constraint \
    WHERE contype = 'c' AND conrelid = to_regclass($1)";

fn action(letter: &str) -> String {
    match letter {
        "a" => "NO ACTION",
        "c" => "CASCADE",
        "n" => "SET NULL",
        "r" => "RESTRICT",
        "d" => "SET DEFAULT",
        other => panic!("{other}"),
    }
    .to_owned()
}

async fn of_postgres(db: &mut PgConnection) -> Schema {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' \
         AND tablename <> '_sqlx_migrations'",
    )
    .fetch_all(&mut *db)
    .await
    .unwrap();
    let mut schema = Schema::new();
    for name in tables {
        let mut table = Table::default();
        let columns: Vec<PgColumn> = sqlx::query_as(PG_COLUMNS)
            .bind(&name)
            .fetch_all(&mut *db)
            .await
            .unwrap();
        for (column, kind, must, collation, default) in columns {
            let kind = match kind.as_str() {
                "text" => {
                    let byte_by_byte = collation.as_deref() == Some("C");
                    assert!(byte_by_byte, "{name}.{column} needs COLLATE \"C\"");
                    "text"
                }
                "bigint" => "integer",
                "bytea" => "bytes",
                other => panic!("{name}.{column} is {other}"),
            };
            // As PostgreSQL writes a text.
            let default = default.map(|text| text.trim_end_matches("::text").to_owned());
            table.columns.push((column, kind, must, default));
        }
        let indexes: Vec<(String, bool, bool, bool, Vec<String>, String)> =
            sqlx::query_as(PG_INDEXES)
                .bind(&name)
                .fetch_all(&mut *db)
                .await
                .unwrap();
        for (index, unique, primary, of_constraint, columns, condition) in indexes {
            if primary {
                table.primary = columns;
                continue;
            }
            if !of_constraint {
                table.indexes.insert(index, (columns.clone(), unique));
            }
            if unique {
                table.uniques.insert((columns, words(&condition)));
            }
        }
        let foreign: Vec<PgForeign> = sqlx::query_as(PG_FOREIGN)
            .bind(&name)
            .fetch_all(&mut *db)
            .await
            .unwrap();
        for (to, delete, update, here, there) in foreign {
            table
                .foreign
                .insert((here, to, there, action(&delete), action(&update)));
        }
        let checks: Vec<String> = sqlx::query_scalar(PG_CHECKS)
            .bind(&name)
            .fetch_all(&mut *db)
            .await
            .unwrap();
        table.checks = checks.iter().map(|text| words(text)).collect();
        schema.insert(name, table);
    }
    schema
}

#[test]
fn every_migration_exists_twice() {
    let list = |migrator: sqlx::migrate::Migrator| -> Vec<(i64, String)> {
        let each = migrator
            .iter()
            .map(|one| (one.version, one.description.to_string()));
        each.collect()
    };
    let sqlite = list(sqlx::migrate!("src/storage/migrations/sqlite"));
    let postgres = list(sqlx::migrate!("src/storage/migrations/postgres"));
    assert_eq!(sqlite, postgres);
    assert!(!sqlite.is_empty());
}

#[tokio::test]
async fn both_databases_have_the_same_schema() {
    let Some(database) = Database::new().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("legation.db");
    Store::open(&path).await.unwrap().close().await;
    database.store().await.close().await;
    let url = format!("sqlite://{}", path.display());
    let mut sqlite = SqliteConnection::connect(&url).await.unwrap();
    let mut postgres = database.session().await;
    let (one, other) = (
        of_sqlite(&mut sqlite).await,
        of_postgres(&mut postgres).await,
    );
    assert!(one.len() >= 11, "{:?}", one.keys());
    assert!(one.values().any(|table| !table.checks.is_empty()));
    for (name, table) in &one {
        assert_eq!(
            Some(table),
            other.get(name),
            "{name}: SQLite's, then PostgreSQL's"
        );
    }
    assert_eq!(one.len(), other.len(), "{:?}", other.keys());
    drop((sqlite, postgres));
    database.drop().await;
}
