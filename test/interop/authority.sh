#!/usr/bin/env bash
# Backends with certificates that OpenSSL made, by RSA, ECDSA and Ed25519; OpenSSL is the backend.
. "$(dirname "$0")/lib.sh"
need openssl openssl

cd "$work"
cat >ca.conf <<'CONF'
[ca]
default_ca = any
[any]
database = index.txt
default_md = sha256
default_crl_days = 30
crlnumber = crlnumber
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[client]
extendedKeyUsage = clientAuth
subjectAltName = DNS:a.test
[server]
extendedKeyUsage = serverAuth
subjectAltName = DNS:a.test
[elsewhere]
extendedKeyUsage = clientAuth
subjectAltName = DNS:other.test
CONF
: >index.txt
echo 01 >crlnumber

# key NAME ALGORITHM…
key() { openssl genpkey -quiet -out "$1.key" "${@:2}" 2>/dev/null || openssl genpkey -out "$1.key" "${@:2}" 2>/dev/null; }
# sign NAME AUTHORITY SECTION [options]: for the key NAME.key
sign() {
    openssl req -new -key "$1.key" -subj "/CN=$1/OU=engineering" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -extfile ca.conf -extensions "$3" \
        -out "$1.pem" -days 30 "${@:4}" 2>/dev/null
}
key root -algorithm RSA -pkeyopt rsa_keygen_bits:2048
openssl req -x509 -new -key root.key -subj /CN=root -days 30 -config ca.conf -extensions authority -out root.pem 2>/dev/null ||
    openssl req -x509 -new -key root.key -subj /CN=root -days 30 -addext basicConstraints=critical,CA:TRUE -out root.pem
key between -algorithm EC -pkeyopt ec_paramgen_curve:P-256
sign between root authority
key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
sign rsa root client
key ecdsa -algorithm EC -pkeyopt ec_paramgen_curve:P-256
sign ecdsa root client
key ed25519 -algorithm ED25519
sign ed25519 root client
for name in expired usage elsewhere through revoked; do key "$name" -algorithm EC -pkeyopt ec_paramgen_curve:P-256; done
sign expired root client -not_before 20200101000000Z -not_after 20210101000000Z 2>/dev/null ||
    sign expired root client -days -1
sign usage root server
sign elsewhere root elsewhere
sign through between client
sign revoked root client
openssl ca -config ca.conf -revoke revoked.pem -keyfile root.key -cert root.pem 2>/dev/null
openssl ca -config ca.conf -gencrl -keyfile root.key -cert root.pem -out root.crl 2>/dev/null
: >index.txt
openssl ca -config ca.conf -gencrl -keyfile between.key -cert between.pem -out between.crl 2>/dev/null
cat root.crl between.crl >all.crl

cat >gateway.toml <<'CONF'
[[route]]
hosts = ["a.test"]
[[route.allow]]
client_ca = "root.pem"
client_crl = "all.crl"
CONF
start gateway "${server_command[@]}" --self-signed --listen 127.0.0.1:0 --config gateway.toml
within 10 grep -qsE '127\.0\.0\.1:[0-9]+' gateway.out
port=$(grep -oE '127\.0\.0\.1:[0-9]+' gateway.out | head -n 1 | cut -d: -f2)

# verdict NAME [options]: what a backend with that certificate hears first, the preface of HTTP/2 or GOAWAY's reason.
verdict() {
    timeout 10 openssl s_client -connect "127.0.0.1:$port" -servername a.test -alpn 2ptth -quiet \
        -cert "$1.pem" -key "$1.key" "${@:2}" <<<'' 2>>"verdict.log" | head -c 24 | tr -d '\0' | head -n 1 || true
}
for name in rsa ecdsa ed25519; do
    check "a certificate with a key by $name is let in" grep -q '^PRI' <(verdict "$name")
done
check 'so is one through an intermediate' grep -q '^PRI' <(verdict through -cert_chain between.pem)
for name in expired usage through revoked; do
    check "one that is $name isn't" test -z "$(verdict "$name")"
done
refused() { grep -q 'refused.*not allowed to serve' gateway.log; }
verdict elsewhere >/dev/null
check 'one for another name is told so' within 5 refused
