// Package adminpb holds the generated messages and stubs of the daemon's own services, Admin (admin.proto), Denial
// (deny.proto) and Rules (policy.proto).
package adminpb

//go:generate protoc --go_out=../.. --go_opt=module=github.com/shared-altsd/shared-altsd --go-grpc_out=../.. --go-grpc_opt=module=github.com/shared-altsd/shared-altsd -I ../.. internal/adminpb/admin.proto internal/adminpb/deny.proto internal/adminpb/policy.proto
