import type { Sql } from './client.ts'

/** How long a process may be silent before another one fetches what it was fetching, in seconds. */
const leaseSeconds = 10

/** False where another process is fetching it. */
export async function claimFetch(sql: Sql, thing: string, holder: string): Promise<boolean> {
  const rows = await sql`
    insert into upstream_fetches (thing, holder, leased_until)
    values (${thing}, ${holder}, now() + make_interval(secs => ${leaseSeconds}))
    on conflict (thing) do update set holder = excluded.holder, leased_until = excluded.leased_until
      where upstream_fetches.leased_until < now()
    returning thing`
  return rows.length > 0
}

/** Says that the process that fetches it lives. */
export async function prolongFetch(sql: Sql, thing: string, holder: string): Promise<void> {
  await sql`
    update upstream_fetches set leased_until = now() + make_interval(secs => ${leaseSeconds})
    where thing = ${thing} and holder = ${holder}`
}

/** Lets go of it; and of what processes left that died long ago. */
export async function endFetch(sql: Sql, thing: string, holder: string): Promise<void> {
  await sql`
    delete from upstream_fetches
    where (thing = ${thing} and holder = ${holder}) or leased_until < now() - interval '1 hour'`
}
