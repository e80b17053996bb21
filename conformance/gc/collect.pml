/*
 * How content is pushed, deleted and collected at the same time: the protocol of src/registry/collect.ts as a model
 * that spin (https://spinroot.com) runs through in every order there is. conformance/gc-model.test.ts does so for small
 * casts of clients, and for models with one mistake each, in which spin has to find it.
 *
 * There is one content; two repositories, A and B, have or have not a link to it; each has or has not a manifest that
 * needs it. Rows are locked and seen as PostgreSQL (read committed) does it: a statement sees what was committed when it
 * began, waits for row locks one by one, finds a row it has waited for as it is then, and what a transaction did is
 * there all at once when it commits, or not at all. Each step between two waits is one transition, so everybody else may
 * come in between.
 *
 *   in this model         in the code                        locks
 *   linkArrival           db/blobs.ts linkStored, linkHeld   blob, link
 *   Pusher                registry/blobs.ts storeContent     (the object is put first, under a key of its own)
 *   putManifest           db/manifests.ts insertManifest     manifest; link: key share, by the foreign key of its edge
 *   Mounter               db/blobs.ts mountBlob              link and blob there: key share; link here
 *   Header                registry/blobs.ts confirmBlob,     link
 *                         db/blobs.ts postponeReview
 *   Deleter               db/manifests.ts deleteManifest     manifest, then in a second statement its links
 *   Unlinker              db/blobs.ts unlinkBlob             blob, link
 *   Importer              db/imports.ts claimBlobs, then     blob; when it publishes blob, link, manifest, all in one
 *                         registry/import-publish.ts write   transaction
 *   Collector             db/collect.ts lockDueLinks and     blob and link, blob: what nobody else has (skip locked)
 *                         judgeLinks, lockDueBlobs and
 *                         judgeBlobs
 *   Remover               registry/deletions.ts discard      none
 *   Clock                 review_at <= now()
 *
 * What is simpler here: time is "the grace is not over" or "it is", and it does not end while a transaction runs (those
 * are cut after 30 seconds); a row that goes and comes again while somebody waits for it is taken for the same one, where
 * PostgreSQL would find none. Not in it: content found damaged and stored again (db/damage.ts), quotas. A process that dies in a transaction loses it, and keeps the object it has stored.
 */

#define KEYS 3     // objects that can be stored
#ifndef CRASHES
#define CRASHES 1  // processes that die in the middle
#endif

// ---- rows -------------------------------------------------------------------------------------------------------
#define A 0 // the link of repository A
#define B 1
#define BLOB 2
#define MANIFEST(r) (3 + r) // with its edge to the content
#define PACK 5 // whoever changes the versions of a pack takes turns
#define ROWS 6

// review_at
#define NONE 0
#define FRESH 1 // the grace is not over
#define DUE 2

bit here[ROWS];      // committed
byte review[3];
byte key;            // blobs.storage_key
byte owner[ROWS];    // who holds the row for no key update or for update, or is inserting it
bit whole[ROWS];     // its owner keeps off key shares as well
short sharers[ROWS]; // who holds it for key share
bit relied;          // import_blobs has a row that says: the registry holds it

bit object[KEYS + 1]; // the store
bit queued[KEYS + 1]; // blob_deletions
bit lost[KEYS + 1];   // stored by a process that died before there was a row: reconciling finds it
byte last;            // the key that was made last

bit promised[12];     // by process: it was told, within the grace that is running, that the content is there
byte crashes = CRASHES;
byte clients;
bit stop;

// ---- PostgreSQL -------------------------------------------------------------------------------------------------
#define self (_pid + 1)
#define others (~(1 << _pid))
#define mine(x) (owner[x] == self)
#define unowned(x) (owner[x] == 0 || mine(x))
#define locked(x) (owner[x] != 0 || sharers[x] != 0)

// Commit and rollback give back all locks.
inline end() {
  i = 0;
  do
  :: i < ROWS ->
     if
     :: mine(i) -> owner[i] = 0; whole[i] = 0
     :: else
     fi;
     sharers[i] = sharers[i] & others;
     i++
  :: else -> break
  od;
  i = 0; got = 0
}

// The process dies, or its connection ends: what it did in a transaction has not happened.
#define dies atomic { crashes > 0 -> crashes--; d_step { end() }; goto died }

// A key share, as the check of a foreign key takes it: of the newest state, waiting for whoever deletes the row.
inline share(x) {
  if
  :: atomic {
       !(here[x] && whole[x] && !mine(x));
       got = (here[x] || mine(x));
       if
       :: got && !mine(x) -> sharers[x] = sharers[x] | (1 << _pid)
       :: else
       fi
     }
  :: dies
  fi
}

// `update`: what the statement sees, it waits for, and finds again or not.
inline update(x) {
  if
  :: atomic {
       got = here[x];
       if
       :: got -> unowned(x); got = here[x]
       :: else
       fi;
       if
       :: got -> owner[x] = self
       :: else
       fi
     }
  :: dies
  fi
}

// `delete`: waits for those who share the row, too.
inline delete(x) {
  if
  :: atomic {
       got = here[x];
       if
       :: got -> unowned(x) && (sharers[x] & others) == 0; got = here[x]
       :: else
       fi;
       if
       :: got -> owner[x] = self; whole[x] = 1
       :: else
       fi
     }
  :: dies
  fi
}

// `insert … on conflict do update`: the row is ours now, whether it was there or not.
inline upsert(x) {
  if
  :: atomic { unowned(x); whole[x] = (whole[x] || !here[x]); owner[x] = self }
  :: dies
  fi
}

// ---- what holds at any moment -----------------------------------------------------------------------------------
inline check() {
  assert(!here[MANIFEST(A)] || here[A]); // a manifest that was acknowledged and is not deleted has its link,
  assert(!here[MANIFEST(B)] || here[B]);
  assert(!(here[A] || here[B]) || here[BLOB]); // a link its row,
  assert(!here[BLOB] || object[key]); // a row its object
  assert(!here[A] || review[A] != NONE || here[MANIFEST(A)]); // and what is not to be looked at is needed
  assert(!here[B] || review[B] != NONE || here[MANIFEST(B)]);
  assert(!here[BLOB] || review[BLOB] != NONE || here[A] || here[B])
}

// ---- statements -------------------------------------------------------------------------------------------------

// The link's row, and where it is new its foreign key: were that violated, the client would get a 500.
inline upsertLink(r) {
  upsert(r);
  if
  :: !here[r] -> share(BLOB); assert(got)
  :: else
  fi
}

// `stored` 0: the content is said to be held. Answers in `done`.
inline linkArrival(r) {
  if
  :: stored == 0 -> // linkHeld: update blobs set review_at …
#ifdef HELD_BY_A_LOOK
     if
     :: atomic { true; got = here[BLOB] }
     :: dies
     fi
#else
     update(BLOB)
#endif
  :: else -> // linkStored: insert into blobs … on conflict (digest) do update set review_at
#ifdef DO_NOTHING
     if
     :: atomic {
          !whole[BLOB];
          if
          :: here[BLOB]
          :: else -> owner[BLOB] = self; whole[BLOB] = 1
          fi;
          got = 1
        }
     :: dies
     fi
#else
     upsert(BLOB);
     got = 1
#endif
  fi;
  if
  :: got ->
     upsertLink(r); // linked: insert into repository_blobs … on conflict do update set review_at
     if
     :: d_step {
          true;
          if
          :: !here[BLOB] -> here[BLOB] = 1; key = stored
          :: stored != 0 && here[BLOB] && key != stored -> queued[stored] = 1 // spare
          :: else
          fi;
          if
          :: mine(BLOB) -> review[BLOB] = FRESH
          :: else
          fi;
          here[r] = 1; review[r] = FRESH; stored = 0; done = 1;
          end(); check()
        }
     :: dies
     fi
  :: else -> d_step { done = 0; end() }
  fi
}

// Answers in `done`.
inline putManifest(r) {
  do
  ::
     upsert(MANIFEST(r)); // manifest: insert into manifests … on conflict do update set pushed_at
     if
     :: here[MANIFEST(r)] -> got = 1 // blobs: insert into manifest_blobs … on conflict do nothing
     :: else ->
#ifdef EDGE_WITHOUT_LOCK
        got = here[r]
#else
        share(r) // its foreign key manifest_blobs_link
#endif
     fi;
     if
     :: got ->
        if
        :: d_step { true; here[MANIFEST(r)] = 1; done = 1; end(); check() }
        :: dies
        fi;
        break
     :: else ->
        d_step { done = 0; end() };
        // missingBlobs: none where it came in the same moment
        if
        :: here[r]
        :: else -> break // MANIFEST_BLOB_UNKNOWN
        fi
     fi
  od
}

// What every client ends with.
inline leave() {
  d_step { done = 0; stored = 0; promised[_pid] = 0; end(); clients-- }
}

// ---- clients ----------------------------------------------------------------------------------------------------
#define locals byte i; bit got; bit done; byte stored

// Pushes content and then a manifest that needs it, until both are acknowledged.
proctype Pusher(byte r) {
  locals;
again:
  promised[_pid] = 1;
  if
  :: true -> // by a guess it is held
     linkArrival(r);
     if
     :: done -> goto put
     :: else
     fi
  :: true
  fi;
  if
  :: d_step {
       last < KEYS -> last++;
#ifdef NO_GENERATION
       stored = 1;
#else
       stored = last;
#endif
       object[stored] = 1
     }
  :: last == KEYS -> goto gone // this store is full
  fi;
  linkArrival(r);
put:
  putManifest(r);
  if
  :: done -> goto gone
  :: else -> assert(!promised[_pid]); goto again // pushes it again
  fi;
died:
  skip;
  d_step {
    if
    :: stored != 0 -> lost[stored] = 1; stored = 0
    :: else
    fi
  };
  goto again;
gone:
  leave()
}

// Mounts content of one repository into another, and puts a manifest there.
proctype Mounter(byte from, to) {
  locals;
again:
  promised[_pid] = 1;
  // source: select … for key share of l, b
  if
  :: here[from] -> share(from)
  :: else
  fi;
  if
  :: got -> share(BLOB)
  :: else
  fi;
  if
  :: !got -> goto gone // 202: it would upload
  :: else
  fi;
  upsertLink(to);
  if
  :: d_step { true; here[to] = 1; review[to] = FRESH; end(); check() }
  :: dies
  fi;
  putManifest(to);
  if
  :: done -> goto gone
  :: else -> assert(!promised[_pid]); goto again
  fi;
died:
  goto again;
gone:
  leave()
}

// Asks whether content is there, relies on the answer, and puts a manifest.
proctype Header(byte r) {
  locals;
again:
  promised[_pid] = 1;
  // findLinkedBlobs
  if
  :: !here[r] -> goto gone // 404
  :: here[r] && review[r] != DUE
  :: here[r] && review[r] == DUE ->
     update(r);
     if
     :: d_step {
          true;
          done = (mine(r) && review[r] != NONE);
          if
          :: done -> review[r] = FRESH
          :: else
          fi;
          end(); check()
        }
     :: dies
     fi;
#ifndef HEAD_BY_ITS_FIRST_LOOK
     if
     :: !done -> goto again // there was nothing to put off: it looks again
     :: else
     fi
#endif
  fi;
  putManifest(r);
  if
  :: done -> goto gone
  :: else -> assert(!promised[_pid]); goto again
  fi;
died:
  goto again;
gone:
  leave()
}

// Deletes a manifest, of a pack or another repository.
proctype Deleter(byte r; bit pack) {
  locals;
again:
  if
  :: pack -> upsert(PACK) // lockPack
  :: else
  fi;
  delete(MANIFEST(r)); // select … for update
  if
  :: !got -> d_step { end() }; goto gone // MANIFEST_UNKNOWN
  :: else
  fi;
#ifdef REVIEW_NOT_SET
  got = 0;
#else
  update(r); // freed, review
#endif
  if
  :: d_step {
       true;
       here[MANIFEST(r)] = 0;
       if
       :: mine(r) -> review[r] = FRESH
       :: else
       fi;
       end(); check()
     }
  :: dies
  fi;
  goto gone;
died:
  goto again;
gone:
  leave()
}

// Takes content out of a repository by its digest. Whoever was told that it is there cannot rely on that any more.
proctype Unlinker(byte r) {
  locals;
again:
#ifdef LINK_BEFORE_BLOB
  delete(r);
  if
  :: got -> update(BLOB)
  :: else
  fi;
#else
  update(BLOB); // review
  if
  :: got -> delete(r)
  :: else
  fi;
#endif
  if
  :: d_step {
       got && !here[MANIFEST(r)] ->
       here[r] = 0; review[r] = NONE; review[BLOB] = FRESH;
       i = 0;
       do
       :: i < 12 -> promised[i] = 0; i++
       :: else -> break
       od;
       end(); check()
     }
  :: d_step { !got || here[MANIFEST(r)]; end() } // BLOB_UNKNOWN, BLOB_IN_USE
  :: dies
  fi;
  goto gone;
died:
  goto again;
gone:
  leave()
}

// Receives a bundle with the content and a manifest that needs it, and publishes both.
proctype Importer(byte r) {
  locals;
again:
  update(BLOB); // claimBlobs: held, relied_on
  if
  :: d_step {
       true;
       if
       :: got -> review[BLOB] = FRESH;
#ifndef IMPORT_WITHOUT_A_ROW
          relied = 1;
#endif
          done = 1
       :: else -> done = 0
       fi;
       end(); check()
     }
  :: dies
  fi;
  if
  :: done
  :: d_step { !done && last < KEYS -> last++; stored = last; object[stored] = 1 } // its row, in import_blobs, is there
  :: !done && last == KEYS -> goto gone
  fi;
  // Publishing.
  upsert(PACK); // lockPacks
  if
  :: stored != 0 -> upsert(BLOB) // enterBlobs
  :: else
  fi;
  upsertLink(r); // linkBlobs
  upsert(MANIFEST(r)); // placeManifests
  if
  :: !here[MANIFEST(r)] -> share(r); assert(got) // placeEdges
  :: else
  fi;
  if
  :: d_step {
       true;
       if
       :: stored != 0 && !here[BLOB] -> here[BLOB] = 1; key = stored; review[BLOB] = NONE
       :: stored != 0 && here[BLOB] -> queued[stored] = 1
       :: else
       fi;
       if
       :: !here[r] -> review[r] = NONE; here[r] = 1
       :: else
       fi;
       here[MANIFEST(r)] = 1; relied = 0;
       end(); check()
     }
  :: dies
  fi;
  goto gone;
died:
  // expireImports: what it had is thrown away.
  skip;
  d_step {
    if
    :: stored != 0 -> queued[stored] = 1; stored = 0
    :: else
    fi;
    relied = 0
  };
  goto again;
gone:
  leave()
}

// ---- the collector ----------------------------------------------------------------------------------------------
#define due(x) (here[x] && review[x] == DUE)
#define dueLink(r) (due(r) && !locked(r))

#ifdef LINK_WITHOUT_BLOB
#define lockLink(r) owner[r] = self; whole[r] = 1
#else
#define lockLink(r) owner[BLOB] = self; owner[r] = self; whole[r] = 1
#endif

inline lookAtLinks() {
  needed[A] = here[MANIFEST(A)]; needed[B] = here[MANIFEST(B)]
}

inline judgeLink(r) {
  if
  :: mine(r) && needed[r] -> review[r] = NONE
  :: mine(r) && !needed[r] ->
#ifndef EDGE_WITHOUT_LOCK
     assert(!here[MANIFEST(r)]); // the foreign key: its violation would spoil the whole batch
#endif
     here[r] = 0; review[r] = NONE;
#ifndef FREED_NOT_REVIEWED
     if
     :: review[BLOB] == NONE -> review[BLOB] = DUE // freed
     :: else
     fi
#endif
  :: else
  fi
}

proctype Collector() {
  byte i;
  bit got;
  bit needed[2];
again:
end_idle:
  do
  :: atomic {
       (dueLink(A) || dueLink(B)) && unowned(BLOB) ->
#ifdef LOOK_BEFORE_LOCK
       lookAtLinks()
     };
     atomic {
#endif
       if
       :: dueLink(A) && unowned(BLOB) -> lockLink(A) // lockDueLinks
       :: else
       fi
     };
     atomic {
       if
       :: dueLink(B) && unowned(BLOB) -> lockLink(B)
       :: else
       fi
     };
#ifndef LOOK_BEFORE_LOCK
     if
     :: d_step { true; lookAtLinks() } // judgeLinks: judged
     :: dies
     fi;
#endif
     if
     :: d_step { true; judgeLink(A); judgeLink(B); needed[A] = 0; needed[B] = 0; end(); check() }
     :: dies
     fi
  :: d_step { due(BLOB) && !locked(BLOB) -> owner[BLOB] = self; whole[BLOB] = 1 }; // lockDueBlobs
     if
     :: d_step { true; needed[A] = here[A] || here[B]; needed[B] = relied } // judgeBlobs: judged
     :: dies
     fi;
     if
     :: d_step {
          true;
          if
          :: needed[A] -> review[BLOB] = NONE
          :: !needed[A] && needed[B] -> review[BLOB] = FRESH
          :: else ->
             assert(!here[A] && !here[B]); // the foreign key
             here[BLOB] = 0; review[BLOB] = NONE; queued[key] = 1; key = 0
          fi;
          needed[A] = 0; needed[B] = 0; end(); check()
        }
     :: dies
     fi
  :: stop -> break
  od;
  goto gone;
died:
  skip;
  d_step { needed[A] = 0; needed[B] = 0 };
  goto again;
gone:
  skip
}

// Deletes what is queued, outside of any transaction: the object, then its row. It may die in between, and go on.
#define remove(x) \
  :: d_step { queued[x] -> first(x) }; \
     if \
     :: d_step { true; second(x) } \
     :: atomic { crashes > 0 -> crashes-- } \
     fi

#ifdef FORGET_BEFORE_DELETE
#define first(x) queued[x] = 0
#define second(x) object[x] = 0; check()
#else
#define first(x) object[x] = 0; check()
#define second(x) queued[x] = 0
#endif

proctype Remover() {
end_idle:
  do
  remove(1)
  remove(2)
  remove(3)
  :: stop -> break
  od
}

// ---- time -------------------------------------------------------------------------------------------------------
#define fresh (review[A] == FRESH || review[B] == FRESH || review[BLOB] == FRESH)
#define overdue (due(A) || due(B) || due(BLOB))
#define busy (locked(A) || locked(B) || locked(BLOB) || locked(MANIFEST(A)) || locked(MANIFEST(B)))

inline pass() {
  d_step {
    i = 0;
    do
    :: i < 12 -> promised[i] = 0; i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < 3 && review[i] == FRESH -> review[i] = DUE; i++
    :: i < 3 && review[i] != FRESH -> i++
    :: else -> break
    od;
    i = 0
  }
}

proctype Clock() {
  byte i;
  do
  :: atomic { fresh && !busy && clients > 0 -> pass() }
  :: clients == 0 -> break
  od
}

#define settled (!overdue && !busy && !queued[1] && !queued[2] && !queued[3])

init {
  byte i;
  atomic {
    if
    :: true
    :: true -> last = 1; object[1] = 1; key = 1; here[BLOB] = 1; here[A] = 1; here[MANIFEST(A)] = 1 // it was pushed before
    fi;
    CLIENTS;
    run Clock();
    run Collector();
    run Remover()
  };
  // Everybody has gone. After the grace nothing is left that nobody needs.
  clients == 0 && settled;
  pass();
  settled;
  pass();
  settled;
  assert(!here[A] || here[MANIFEST(A)]);
  assert(!here[B] || here[MANIFEST(B)]);
  assert(!here[BLOB] || here[A] || here[B]);
#ifndef NO_GENERATION
  i = 1;
  do
  :: i <= KEYS -> assert(!object[i] || lost[i] || (here[BLOB] && key == i)); i++
  :: else -> break
  od;
#endif
  stop = 1
}
