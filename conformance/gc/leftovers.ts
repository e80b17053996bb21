import { existsSync, readdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import { prefix, type Replicas } from '../../scripts/services/replicas.ts'
import { connect, type Sql } from '../../src/db/client.ts'

/** What is there and nobody needs, in words; and what the store holds that no row names. */
export type Leftovers = { rows: string[]; objects: string[] }

/** Looks at the tables and the store themselves, while nobody writes. */
export async function findLeftovers({ postgres, s3, folder }: Replicas): Promise<Leftovers> {
  const sql = connect(postgres.url, { max: 1 })
  try {
    const rows = (await Promise.all(questions.map((question) => question(sql)))).flat()
    const named = new Set(await namedObjects(sql))
    const objects = s3 ? await s3.objects(prefix) : filesIn(join(folder, 'blobs'))
    const keys = objects.map((object) => object.replace(new RegExp(`^${prefix}/`), ''))
    return { rows, objects: keys.filter((key) => !named.has(key)) }
  } finally {
    await sql.end()
  }
}

const questions = [
  async (sql: Sql) => {
    const rows = await sql<{ name: string; digest: string; due: string | null }[]>`
      select r.name, l.digest, l.review_at::text as due from repository_blobs l
      join repositories r on r.id = l.repository_id
      where not exists (
        select from manifest_blobs e where e.repository_id = l.repository_id and e.blob_digest = l.digest)`
    return rows.map(({ name, digest, due }) => `link of ${name} to ${digest}, to be looked at ${due ?? 'never'}`)
  },
  async (sql: Sql) => {
    const rows = await sql<{ digest: string; due: string | null }[]>`
      select digest, review_at::text as due from blobs b
      where not exists (select from repository_blobs l where l.digest = b.digest)`
    return rows.map(({ digest, due }) => `blob ${digest}, to be looked at ${due ?? 'never'}`)
  },
  async (sql: Sql) => {
    const rows = await sql<{ key: string; error: string | null }[]>`
      select storage_key as key, error from blob_deletions`
    return rows.map(({ key, error }) => `queued object ${key}${error === null ? '' : `: ${error}`}`)
  },
]

async function namedObjects(sql: Sql): Promise<string[]> {
  const rows = await sql<{ key: string }[]>`
    select storage_key as key from blobs
    union all select chunk ->> 'key' from uploads, jsonb_array_elements(chunks) as chunk`
  return rows.map(({ key }) => key)
}

/** Files with a name of their own; what is under way is in `tmp`. */
function filesIn(folder: string): string[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .filter((path) => !path.startsWith('tmp/'))
}
