import { createHmac, type KeyObject } from 'node:crypto'
import { isSameSecret } from '../../auth/secrets.ts'
import { Failure } from '../../errors.ts'

/**
 * Cursors name a place in a list. They are signed, so one that was changed, or belongs to another question, is refused
 * instead of giving a page of something else. `question`: the filters and the order that the list was asked with.
 */
export function writeCursor(secret: KeyObject, question: string, position: object): string {
  const text = Buffer.from(JSON.stringify(position)).toString('base64url')
  return `${text}.${mac(secret, question, text)}`
}

/** Throws QUERY_INVALID. */
export function readCursor<Position>(secret: KeyObject, question: string, cursor: string): Position {
  const [text = '', given = ''] = cursor.split('.')
  if (!isSameSecret(given, mac(secret, question, text)))
    throw new Failure('QUERY_INVALID', {
      detail: 'after is not a cursor of this list: give back "next" as it was answered, with the same filters and sort',
    })
  return JSON.parse(Buffer.from(text, 'base64url').toString()) as Position
}

function mac(secret: KeyObject, question: string, text: string): string {
  return createHmac('sha256', secret).update(`cursor\n${question}\n${text}`).digest('base64url').slice(0, 22)
}
