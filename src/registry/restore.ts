import { createHash } from 'node:crypto'
import { Readable, type Writable } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import type { BlobStore } from '../blobs/store.ts'
import { connect, type Transaction } from '../db/client.ts'
import {
  appliedMigrations,
  beginLoad,
  copyIn,
  type DumpedTable,
  endLoad,
  firstFilled,
  hasTables,
  keyOfBlob,
} from '../db/dump.ts'
import { knownMigrations, migrate } from '../db/migrate.ts'
import { Failure } from '../errors.ts'
import { type Digest, parseDigest } from '../oci/digest.ts'
import type { BackupFile, BackupHead, BackupSums } from './backup.ts'
import { BackupDamaged, RestoreRefused, readHead, readSums } from './backup-documents.ts'
import { checker } from './blobs.ts'

// A backup goes into an empty database in one transaction, which is committed when the last file has told the checksums
// of all others and all are right. Content goes into the store on the way, under the keys that the rows name. A restore
// that ends early leaves the database as it was, but for its empty tables; and content that is to be thrown away with the
// store.

export type Restored = {
  createdAt: string
  schema: string
  tables: number
  /** Content that the backup brought, and what it says was missing or wrong when it was made. */
  blobs: number
  bytes: number
  missing: Digest[]
  damaged: Digest[]
}

type Target = { databaseUrl: string; blobs: BlobStore }

/** Restores a backup, and brings the schema up to this version. Throws RestoreRefused. */
export async function restoreBackup(target: Target, files: AsyncIterable<BackupFile>): Promise<Restored> {
  const iterator = files[Symbol.asyncIterator]()
  const first = await iterator.next()
  const sums = new Map<string, string>()
  if (first.done) throw new RestoreRefused('this is no backup: it has no files')
  const { name } = first.value
  if (name !== 'backup.json') throw new RestoreRefused(`this is no backup: it begins with ${name}`)
  const head = readHead(await whole(first.value, sums))
  await requireFitting(head)
  await requireEmpty(target, head)
  await migrate(target.databaseUrl, undefined, { upTo: head.schema.number })
  const sql = connect(target.databaseUrl, { max: 1, connection: { idle_in_transaction_session_timeout: 0 } })
  try {
    const restored = await sql.begin((tx) => load(tx, target.blobs, head, iterator, sums))
    await migrate(target.databaseUrl)
    return restored
  } finally {
    await sql.end({ timeout: 5 })
  }
}

async function requireFitting({ schema, migrations }: BackupHead): Promise<void> {
  const known = new Set((await knownMigrations()).map(({ number }) => number))
  if (migrations.some((number) => !known.has(number)))
    throw new RestoreRefused(
      `this backup has the schema ${schema.name}, which this version does not know. Restore it with the version that made it, or a newer one`,
    )
}

async function requireEmpty({ databaseUrl, blobs }: Target, head: BackupHead): Promise<void> {
  const sql = connect(databaseUrl, { max: 1 })
  try {
    const applied = await appliedMigrations(sql)
    if (applied.length === 0 && (await hasTables(sql)))
      throw new RestoreRefused('the database has tables of something else. Give an empty one')
    const filled = applied.length > 0 ? await firstFilled(sql) : undefined
    if (filled) throw new RestoreRefused(`the database is not empty: ${filled} has rows. Give an empty one`)
    const newest = applied.at(-1)
    if (newest && newest.number > head.schema.number)
      throw new RestoreRefused(
        `the database has the schema ${newest.name} already, and the backup ${head.schema.name}. Give one without any tables`,
      )
  } finally {
    await sql.end({ timeout: 5 })
  }
  if (head.blobs === 'listed') return
  for await (const { key } of blobs.list('blobs/'))
    throw new RestoreRefused(`the store (${blobs.description}) is not empty: it has ${key}. Give an empty one`)
}

type Loading = { tx: Transaction; blobs: BlobStore; head: BackupHead; sums: Map<string, string> }

async function load(
  tx: Transaction,
  blobs: BlobStore,
  head: BackupHead,
  files: AsyncIterator<BackupFile>,
  sums: Map<string, string>,
): Promise<Restored> {
  const loading = { tx, blobs, head, sums }
  await beginLoad(tx, head.tables).catch((error) => refuse('backup.json', error))
  const tables = openTables(loading)
  try {
    return await loadFiles(loading, tables, files)
  } catch (error) {
    tables.abandon(error)
    throw error
  }
}

async function loadFiles(
  loading: Loading,
  tables: ReturnType<typeof openTables>,
  files: AsyncIterator<BackupFile>,
): Promise<Restored> {
  const { head, sums } = loading
  const restored = { blobs: 0, bytes: 0 }
  const wrong: Digest[] = []
  for (let next = await files.next(); !next.done; next = await files.next()) {
    const file = next.value
    const [kind, name = ''] = file.name.split('/')
    if (kind === 'tables') await tables.add(name, await whole(file, sums))
    else if (kind === 'objects') await whole(file, sums)
    else if (kind === 'blobs') {
      await tables.end()
      const digest = await storeBlob(loading, file)
      if (digest) wrong.push(digest)
      restored.blobs++
      restored.bytes += file.size
    } else if (file.name === 'checksums.json') {
      const told = readSums(await whole(file, new Map()))
      requireSums(told, sums, restored, wrong, head)
      await tables.end()
      const { missing, damaged } = told
      const facts = { createdAt: head.createdAt, schema: head.schema.name, tables: head.tables.length }
      return { ...facts, ...restored, missing, damaged }
    } else throw new BackupDamaged(`the backup has a file that no backup has: ${file.name}`)
  }
  throw new BackupDamaged('the backup ends before its checksums: it was cut off. Nothing of it was restored')
}

/** Feeds the rows of one table after the other to the database. */
function openTables({ tx, head }: Loading) {
  const rest = [...head.tables]
  let open: { table: DumpedTable; writer: Writable } | undefined
  let ended = false
  const close = async () => {
    if (!open) return
    const { table, writer } = open
    open = undefined
    const sent = promised((done) => writer.end(done))
    await Promise.all([sent, answered(tx)]).catch((error) => refuseRows(table, writer, error))
  }
  return {
    async add(name: string, bytes: Buffer): Promise<void> {
      if (open?.table.name !== name) {
        await close()
        const at = rest.findIndex((table) => table.name === name)
        const [table] = at < 0 ? [] : rest.splice(0, at + 1).slice(-1)
        if (!table || ended)
          throw new BackupDamaged(`the rows of ${name} stand in the wrong place: the backup is damaged`)
        open = { table, writer: await copyIn(tx, table).catch((error) => refuse('backup.json', error)) }
        // The database may refuse rows at any time; whoever writes the next ones, or ends, is told.
        open.writer.on('error', () => undefined)
      }
      const { table, writer } = open
      await promised((done) => writer.write(bytes, done)).catch((error) => refuseRows(table, writer, error))
    },
    /** All rows are in. */
    async end(): Promise<void> {
      if (ended) return
      ended = true
      await close()
      await endLoad(tx, head.tables, head.sequences).catch((error) => refuse('backup.json', error))
    },
    /** Ends what is open, so that the connection takes statements again. */
    abandon(error: unknown): void {
      open?.writer.destroy(error as Error)
      open = undefined
    },
  }
}

function promised(call: (done: (error?: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => call((error) => (error ? reject(error) : resolve())))
}

/**
 * Resolves once the rows that were just ended are in, and rejects where they were refused at their end. The driver tells
 * its stream only of the former; a statement that is sent behind the end is answered in either case.
 */
async function answered(tx: Transaction): Promise<void> {
  // Before the end is sent the driver takes no statement.
  await setImmediate()
  await tx`select 1`
}

/** SQLSTATEs that are about what is written: not of its form, against a constraint, too large, of no table or column. */
const aboutContent = /^(22|23|54|4270|42P01)/
/** The statement behind one that was refused, whose own reason the driver has not told. */
const transactionFailed = '25P02'

/** Throws what became of rows: the reason is with the stream, once it knows one. */
function refuseRows({ name }: DumpedTable, { errored }: Writable, error: unknown): never {
  return refuse(`tables/${name}`, errored ?? error)
}

/** Throws an error of the database: in words, where it is because of what the backup says. */
function refuse(what: string, error: unknown): never {
  const { code = '' } = error as { code?: string }
  if (!aboutContent.test(code) && code !== transactionFailed) throw error
  const doubt = code === transactionFailed ? ', unless the log of PostgreSQL gives another reason' : ''
  throw new BackupDamaged(
    `the database does not take ${what} of the backup: it is damaged${doubt}. Nothing was restored`,
    { cause: error },
  )
}

/** Puts content where its row names it. Answers the digest where it is not what it should be: then it is not stored. */
async function storeBlob({ tx, blobs }: Loading, file: BackupFile): Promise<Digest | undefined> {
  const [, algorithm, hex] = file.name.split('/')
  const digest = parseDigest(`${algorithm}:${hex}`)
  const row = digest && (await keyOfBlob(tx, digest))
  if (!digest || !row) throw new BackupDamaged(`the backup has content that no row of it names: ${file.name}`)
  const check = checker(digest, row.size)
  const source = Buffer.isBuffer(file.content)
    ? Readable.from([file.content])
    : Readable.from(file.content, { objectMode: false })
  try {
    await blobs.putStream(row.key, source, { onBytes: check.add, seal: check.seal })
    return undefined
  } catch (error) {
    if (error instanceof Failure && (error.key === 'DIGEST_INVALID' || error.key === 'SIZE_INVALID')) return digest
    throw error
  }
}

function requireSums(
  told: BackupSums,
  sums: ReadonlyMap<string, string>,
  { blobs }: { blobs: number },
  wrong: readonly Digest[],
  head: BackupHead,
): void {
  const names = new Set([...Object.keys(told.files), ...sums.keys()])
  for (const name of names)
    if (told.files[name] !== sums.get(name))
      throw new BackupDamaged(`${name} of the backup is not what it was: the backup is damaged. Nothing was restored`)
  if (head.blobs === 'included' && told.blobs !== blobs)
    throw new BackupDamaged(`the backup has ${blobs} of ${told.blobs} blobs: it is damaged. Nothing was restored`)
  const unknown = wrong.find((digest) => !told.damaged.includes(digest))
  if (unknown)
    throw new BackupDamaged(`${unknown} of the backup is not what its digest says: it is damaged. Nothing was restored`)
}

/** The whole of a file that is small, and its checksum noted. */
async function whole(file: BackupFile, sums: Map<string, string>): Promise<Buffer> {
  const pieces: Buffer[] = []
  if (Buffer.isBuffer(file.content)) pieces.push(file.content)
  else for await (const piece of file.content) pieces.push(piece)
  const bytes = Buffer.concat(pieces)
  sums.set(file.name, createHash('sha256').update(bytes).digest('hex'))
  return bytes
}
