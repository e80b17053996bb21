/**
 * A time as RFC 3339 writes it, or a day: of the years and the zones that PostgreSQL takes as well. Not every text of this
 * form is one.
 */
export const momentGrammar =
  /^(?!0000)\d{4}-\d\d-\d\d(?:T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:0\d|1[0-5]):[0-5]\d))?$/

/** The time, or undefined where there is none such: JavaScript takes the 30th of February for a day in March. */
export function parseMoment(text: string): Date | undefined {
  if (!momentGrammar.test(text)) return undefined
  const day = text.slice(0, 10)
  const time = new Date(text)
  if (Number.isNaN(time.getTime()) || !new Date(day).toISOString().startsWith(day)) return undefined
  return isStorable(time) ? time : undefined
}

/** Whether a time lies in the years 1 to 9999: what is written of others, PostgreSQL does not read. */
export function isStorable(time: Date): boolean {
  return /^(?!0000)\d{4}-/.test(time.toISOString())
}
