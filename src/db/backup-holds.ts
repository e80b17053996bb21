import type { Sql } from './client.ts'

// While a hold lasts no object is deleted from the store (`dueDeletions` answers none): what a backup names stays. Rows
// go on being collected, and their keys wait in the queue. A hold is taken before the backup's snapshot: what the queue
// gave out before that has no row in the snapshot, for the row went before its key came into the queue. A hold ends by
// itself, so a backup that dies does not keep the store from being cleaned for ever.

/** Takes a hold, or prolongs it, from now on. */
export async function hold(sql: Sql, id: string, seconds: number): Promise<void> {
  await sql`
    insert into backup_holds (id, until) values (${id}, now() + make_interval(secs => ${seconds}))
    on conflict (id) do update set until = excluded.until`
  await sql`delete from backup_holds where until < now() - interval '1 day'`
}

/** Prolongs a hold that has not ended; false where it has: objects may have been deleted since. */
export async function prolongHold(sql: Sql, id: string, seconds: number): Promise<boolean> {
  const rows = await sql`
    update backup_holds set until = greatest(until, now() + make_interval(secs => ${seconds}))
    where id = ${id} and until > now() returning id`
  return rows.length > 0
}

export async function endHold(sql: Sql, id: string): Promise<void> {
  await sql`delete from backup_holds where id = ${id}`
}
