import * as v from 'valibot'
import { isGlob } from '../auth/glob.ts'
import { boundedList } from '../packs/bounded-list.ts'
import { agePattern } from '../registry/retention-policy.ts'

// A policy as it is written. Every section has to keep something by a rule: one that keeps nothing is surely a mistake.

const globs = (least: number) =>
  v.pipe(
    boundedList(
      v.pipe(
        v.string('must be text'),
        v.check(
          isGlob,
          'must be a glob over repository names, such as packs/net-* or images/**, with three wildcards at most',
        ),
      ),
      100,
      'must be a list of globs',
    ),
    v.minLength(least, 'must name at least one'),
  )

const keepNewest = v.optional(
  v.pipe(
    v.number('must be a number'),
    v.integer('must be a whole number'),
    v.minValue(1, 'must be at least 1'),
    v.maxValue(100_000, 'must be at most 100,000'),
    v.description('So many: of versions the highest, of tags those that were pushed last.'),
  ),
)
const keepNewerThan = v.optional(
  v.pipe(
    v.string('must be text'),
    v.regex(agePattern, 'must be a number of hours, days or weeks, such as 12h, 90d or 4w'),
    v.description('Published, pushed, or without a tag for less long than this: `12h`, `90d`, `4w`.'),
  ),
)
const keepMatching = v.optional(
  v.pipe(
    boundedList(
      v.pipe(v.string('must be text'), v.regex(/^[\w.*-]{1,128}$/, 'must be a tag, with * for any characters')),
      100,
      'must be a list of tags',
    ),
    v.minLength(1, 'must name at least one'),
    v.description('Tags whose name is like one of these, with `*` for any characters.'),
  ),
)
const keepUnreleased = v.optional(
  v.pipe(v.literal(true, 'must be true, or left out'), v.description('Pre-releases whose release is not published.')),
)

/** What is kept of a kind of things, by at least one rule. */
const keeping = <const E extends v.ObjectEntries>(entries: E) =>
  v.optional(
    v.pipe(
      v.strictObject(entries),
      v.check(
        (rules) => Object.values(rules).some((rule) => rule !== undefined),
        `must keep something: ${Object.keys(entries).join(', ')}`,
      ),
    ),
  )

export const policySchema = v.pipe(
  v.strictObject({
    repositories: v.pipe(globs(1), v.description('`packs/net-*`, `images/**`: what it is about.')),
    except: v.optional(v.pipe(globs(1), v.description('What of that it is not about.'))),
    versions: v.pipe(keeping({ keepNewest, keepNewerThan }), v.description('Releases of packs.')),
    prereleases: v.pipe(
      keeping({ keepNewest, keepNewerThan, keepUnreleased }),
      v.description('Pre-releases of packs.'),
    ),
    tags: v.pipe(
      keeping({ keepNewest, keepNewerThan, keepMatching }),
      v.description('Tags of repositories that are no packs; what they named stays, until `untagged` says otherwise.'),
    ),
    untagged: v.pipe(
      keeping({ keepNewerThan }),
      v.description('Manifests without a tag, of repositories that are no packs.'),
    ),
  }),
  v.check(
    ({ versions, prereleases, tags, untagged }) => Boolean(versions ?? prereleases ?? tags ?? untagged),
    'must have at least one of versions, prereleases, tags, untagged',
  ),
)

export const policyName = v.pipe(
  v.string('must be text'),
  v.regex(/^[a-z0-9]+(?:[._-][a-z0-9]+)*$/, 'must be lowercase letters and digits, joined by single ".", "_" or "-"'),
  v.maxLength(100, 'must have at most 100 characters'),
)
