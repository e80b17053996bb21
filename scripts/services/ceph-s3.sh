#!/usr/bin/env bash
# A real S3 server on loopback: one-node Ceph (monitor, in-memory OSD, radosgw), up in a second or two, SigV4 verified.
#
#   ceph-s3.sh up DIR PORT ACCESS_KEY SECRET_KEY [OWNER_PID]
#       S3 at http://127.0.0.1:PORT; PORT+1 is the monitor's. With OWNER_PID it goes down when that process has gone.
#   ceph-s3.sh freeze DIR        requests hang: the OSD stands still
#   ceph-s3.sh thaw DIR          and goes on
#   ceph-s3.sh restart-rgw DIR   the S3 server dies (SIGKILL) and starts again; its data is kept
#   ceph-s3.sh down DIR
#
# Needs: apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd ceph-common   (61 MB)
# Ceph 16: no trailing checksums (SDK: requestChecksumCalculation and responseChecksumValidation 'WHEN_REQUIRED');
# x-amz-checksum-* is ignored, Content-MD5 and x-amz-content-sha256 are checked; CompleteMultipartUpload ignores
# If-None-Match and returns an empty ETag.
set -euo pipefail
cmd=$1 dir=$2
conf=(-c "$dir/ceph.conf")
pid() { cat "$dir/run/$1.pid"; }

wait_for_port() {
  for _ in $(seq 1800); do
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return 0
    sleep 0.1
  done
  echo "radosgw does not listen on port $1: see $dir/log" >&2
  return 1
}

start_rgw() {
  radosgw "${conf[@]}" -n client.rgw.a -f --rgw-data "$dir/rgw" \
    --rgw-frontends "beast endpoint=127.0.0.1:$1 tcp_nodelay=1" >>"$dir/log/rgw.out" 2>&1 &
  echo $! >"$dir/run/rgw.pid"
  wait_for_port "$1"
}

down() {
  for part in rgw osd mon; do
    [ ! -f "$dir/run/$part.pid" ] || kill -9 "$(pid $part)" 2>/dev/null || true
    rm -f "$dir/run/$part.pid"
  done
}

case $cmd in
down) down; exit ;;
freeze) kill -STOP "$(pid osd)"; exit ;;
thaw) kill -CONT "$(pid osd)"; exit ;;
restart-rgw)
  kill -9 "$(pid rgw)"
  while kill -0 "$(pid rgw)" 2>/dev/null; do sleep 0.02; done
  start_rgw "$(cat "$dir/run/port")"
  exit
  ;;
up) ;;
*) echo "ceph-s3.sh: unknown command $cmd" >&2; exit 2 ;;
esac

port=$3 access=$4 secret=$5 owner=${6:-} monitor=$((port + 1))
uuid() { cat /proc/sys/kernel/random/uuid; }
rm -rf "$dir"
mkdir -p "$dir"/{mon,osd0,run,log,rgw}
echo "$port" >"$dir/run/port"
if [ -n "$owner" ]; then
  (
    while kill -0 "$owner" 2>/dev/null && [ -d "$dir/run" ]; do sleep 1; done
    down
  ) >/dev/null 2>&1 &
fi

fsid=$(uuid) osd=$(uuid)
# ms mon client mode: radosgw without cephx never connects otherwise. paxos: start-up takes 12 s without.
# osd heartbeat grace: the monitor must not give up a frozen OSD.
cat >"$dir/ceph.conf" <<C
[global]
fsid = $fsid
mon host = v2:127.0.0.1:$monitor
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon service mode = crc
ms mon cluster mode = crc
run dir = $dir/run
admin socket = $dir/run/\$name.asok
log file = $dir/log/\$name.log
crash dir = $dir/log
paxos propose interval = 0.02
paxos min wait = 0.01
osd objectstore = memstore
memstore device bytes = 4294967296
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd heartbeat grace = 600
mon allow pool size one = true
mon max pg per osd = 2000
mon data avail crit = 1
[mon.a]
mon data = $dir/mon
[osd.0]
osd data = $dir/osd0
C
monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$monitor]" "$dir/monmap" >/dev/null
ceph-mon "${conf[@]}" -i a --mkfs --monmap "$dir/monmap" --keyring /dev/null
ceph-mon "${conf[@]}" -i a -f >"$dir/log/mon.out" 2>&1 &
echo $! >"$dir/run/mon.pid"
ceph "${conf[@]}" --connect-timeout 180 osd new "$osd" >/dev/null
ceph-osd "${conf[@]}" -i 0 --mkfs --osd-uuid "$osd" >"$dir/log/mkfs.out" 2>&1
ceph-osd "${conf[@]}" -i 0 -f >"$dir/log/osd.out" 2>&1 &
echo $! >"$dir/run/osd.pid"
radosgw-admin "${conf[@]}" user create --uid=test --display-name=test --access-key="$access" --secret-key="$secret" \
  >/dev/null 2>"$dir/log/admin.err"
# A killed and restarted radosgw hangs its first write for 20 s without. With it, radosgw-admin, which asks for its watches
# anew while it ends, crashes on a slow machine: so it comes first.
ceph "${conf[@]}" --connect-timeout 180 tell osd.0 config set osd_client_watch_timeout 1 >/dev/null
start_rgw "$port"
