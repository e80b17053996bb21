import type { PackId } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import type { Sql, Transaction } from './client.ts'

/** A version that may not be deleted: since when, who said so, and why. `heldAt`: ISO 8601 in UTC. */
export type Hold = { packId: PackId; version: Version; reason: string; heldBy: string; heldAt: string }

const columns = (sql: Sql | Transaction) => sql`
  pack_id as "packId", version, reason, held_by as "heldBy",
  to_char(held_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "heldAt"`

/** Holds a version; one that is held already keeps its time, and is told the new reason. Under the pack's lock. */
export async function putHold(tx: Transaction, hold: Omit<Hold, 'heldAt'>): Promise<Hold> {
  const { packId, version, reason, heldBy } = hold
  const [row] = await tx<Hold[]>`
    insert into holds (pack_id, version, reason, held_by) values (${packId}, ${version}, ${reason}, ${heldBy})
    on conflict (pack_id, version) do update set reason = excluded.reason, held_by = excluded.held_by
    returning ${columns(tx)}`
  return row as Hold
}

/** False where it was not held. */
export async function deleteHold(sql: Sql, packId: PackId, version: Version): Promise<boolean> {
  return (await sql`delete from holds where pack_id = ${packId} and version = ${version} returning version`).length > 0
}

/** Those of these versions that are held. */
export async function findHolds(sql: Sql | Transaction, packId: PackId, versions: readonly Version[]): Promise<Hold[]> {
  const rows = await sql<Hold[]>`
    select ${columns(sql)} from holds
    where pack_id = ${packId} and version = any(${versions as readonly string[]}::text[]) order by version`
  return [...rows]
}

/** Holds after `last` by pack and version, at most `limit`. */
export async function listHolds(
  sql: Sql,
  { last, limit }: { last: { packId: string; version: string } | undefined; limit: number },
): Promise<Hold[]> {
  const rows = await sql<Hold[]>`
    select ${columns(sql)} from holds
    where (pack_id, version) > (${last?.packId ?? ''}, ${last?.version ?? ''})
    order by pack_id, version limit ${limit}`
  return [...rows]
}
