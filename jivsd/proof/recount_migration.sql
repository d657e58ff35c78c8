-- What must be zero after a migration, besides each table's rows.

-- name: wrong_references
-- rows of the target that refer to nothing
SELECT count(*)
FROM target.sqlite_schema AS held, pragma_foreign_key_check(held.name, 'target') WHERE held.type = 'table'

-- name: wrong_schema
-- differences between the schemas
SELECT count(*) FROM (
    SELECT sum(side) AS sides
    FROM (
        SELECT type, name, sql, 1 AS side FROM source.sqlite_schema WHERE name NOT LIKE 'sqlite^_%' ESCAPE '^'
        UNION ALL
        SELECT type, name, sql, -1 FROM target.sqlite_schema WHERE name NOT LIKE 'sqlite^_%' ESCAPE '^'
    )
    GROUP BY type, name, sql HAVING sides <> 0
)
