import { askFor, type Field } from './answers.ts'
import type { Call, Connection } from './connection.ts'
import { PacksError } from './failure.ts'

/**
 * The pages of a list, asked for as they are consumed: objects with this field, and `next` in each but the last, which the
 * following one is asked for with (`after`). `path`: may have a query of its own, without `after`.
 * Throws ANSWER_INVALID where a page leads back to one before it: a list would have no end.
 */
export async function* pages<Page extends object>(
  connection: Connection,
  field: Field,
  call: Call,
): AsyncGenerator<Page, void, undefined> {
  const seen = new Set<string>()
  let path = call.path
  for (;;) {
    const page: Page & { next?: string } = await askFor(connection, field, { ...call, path })
    yield page as Awaited<Page>
    const { next } = page
    if (next === undefined) return
    if (seen.has(next))
      throw new PacksError(
        'ANSWER_INVALID',
        `${connection.base}${call.path} answers with the same pages again and again`,
      )
    seen.add(next)
    path = `${call.path}${call.path.includes('?') ? '&' : '?'}${new URLSearchParams({ after: next })}`
  }
}

/** The entries of a list, page after page as they are consumed. Throws ANSWER_INVALID. */
export async function* listed<Entry>(
  connection: Connection,
  field: Field,
  call: Call,
): AsyncGenerator<Entry, void, undefined> {
  for await (const page of pages<Record<string, Entry[]>>(connection, field, call)) {
    yield* page[field] ?? []
  }
}
