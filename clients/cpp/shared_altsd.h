// gRPC C++ credentials that use ALTS by way of the machine's shared-altsd. Copy this one file into your project.
//
//   auto channel = grpc::CreateChannel("db.example.com:50051",
//                                      shared_altsd::ChannelCredentials({"postgres@db.example.com"}));
//   builder.AddListeningPort("0.0.0.0:50051", shared_altsd::ServerCredentials());
//   grpc::Status s = shared_altsd::Authorize(*context, {"alice@alpha.example.com"});
//
// For gRPC 1.46 and later, C++14 and later (what gRPC itself asks for, if that is more). README.md beside this file says
// which versions it was run with.

#ifndef SHARED_ALTSD_H
#define SHARED_ALTSD_H

// The version of this header: 10000 for 1.0.0. Within 1.x what is here stays as it is.
#define SHARED_ALTSD_VERSION 100

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/alts_util.h>
#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

// Exported by libgrpc, declared in a header that is not installed.
grpc_channel_credentials* grpc_alts_credentials_create_customized(const grpc_alts_credentials_options* options,
                                                                  const char* handshaker_service_url,
                                                                  bool enable_untrusted_alts);
grpc_server_credentials* grpc_alts_server_credentials_create_customized(const grpc_alts_credentials_options* options,
                                                                        const char* handshaker_service_url,
                                                                        bool enable_untrusted_alts);
namespace grpc {
namespace internal {
// Exported by libgrpc++ as long as grpc::ChannelCredentials is abstract, and used only then.
std::shared_ptr<grpc::ChannelCredentials> WrapChannelCredentials(grpc_channel_credentials* creds);
}  // namespace internal
}  // namespace grpc

namespace shared_altsd {

// Where the daemon listens, as a gRPC target.
inline const char* DefaultSocket() { return "unix:///run/shared-altsd/socket"; }

namespace internal {

// Base is grpc::ChannelCredentials. In older versions it is abstract; in newer ones it takes the C object.
template <class Base, bool abstract = std::is_abstract<Base>::value>
struct Channel {
  static std::shared_ptr<Base> Make(grpc_channel_credentials* c) { return grpc::internal::WrapChannelCredentials(c); }
};

template <class Base>
struct Channel<Base, false> {
  class Credentials final : public Base {
   public:
    explicit Credentials(grpc_channel_credentials* c) : Base(c) {}
  };
  static std::shared_ptr<Base> Make(grpc_channel_credentials* c) { return std::make_shared<Credentials>(c); }
};

// Base is grpc::ServerCredentials, likewise.
template <class Base, bool abstract = std::is_abstract<Base>::value>
struct Server {
  class Credentials final : public Base {
   public:
    explicit Credentials(grpc_server_credentials* c) : c_(c) {}
    ~Credentials() override { grpc_server_credentials_release(c_); }
    // Older versions keep what this needs to themselves. A check that would be skipped must not look as if it were
    // made.
    void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
      std::fputs("shared_altsd: this gRPC version has no AuthMetadataProcessor for ALTS: authorize in the handler\n",
                 stderr);
      std::abort();
    }

   private:
    int AddPortToServer(const std::string& address, grpc_server* server) override {
      return grpc_server_add_http2_port(server, address.c_str(), c_);
    }
    grpc_server_credentials* const c_;
  };
  static std::shared_ptr<Base> Make(grpc_server_credentials* c) { return std::make_shared<Credentials>(c); }
};

template <class Base>
struct Server<Base, false> {
  class Credentials final : public Base {
   public:
    explicit Credentials(grpc_server_credentials* c) : Base(c) {}
  };
  static std::shared_ptr<Base> Make(grpc_server_credentials* c) { return std::make_shared<Credentials>(c); }
};

inline std::string First(const grpc::AuthContext& context, const char* name) {
  const auto values = context.FindPropertyValues(name);
  return values.empty() ? std::string() : std::string(values[0].data(), values[0].size());
}

}  // namespace internal

// ChannelCredentials makes client credentials. target_accounts are the accounts, user@machine, that the server may be:
// name them always. Without any, the daemon checks the machine by the host name dialled, and takes any account on it.
inline std::shared_ptr<grpc::ChannelCredentials> ChannelCredentials(const std::vector<std::string>& target_accounts,
                                                                    const std::string& socket = DefaultSocket()) {
  // gRPC is to be initialized before its C functions are called.
  const auto initialized = grpc::InsecureChannelCredentials();
  grpc_alts_credentials_options* options = grpc_alts_credentials_client_options_create();
  for (const auto& account : target_accounts) {
    grpc_alts_credentials_client_options_add_target_service_account(options, account.c_str());
  }
  grpc_channel_credentials* c = grpc_alts_credentials_create_customized(options, socket.c_str(), true);
  grpc_alts_credentials_options_destroy(options);
  return internal::Channel<grpc::ChannelCredentials>::Make(c);
}

// ServerCredentials makes server credentials. Whoever can connect is let in: check Peer, or call Authorize, in each
// handler.
inline std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const std::string& socket = DefaultSocket()) {
  const auto initialized = grpc::InsecureServerCredentials();
  grpc_alts_credentials_options* options = grpc_alts_credentials_server_options_create();
  grpc_server_credentials* c = grpc_alts_server_credentials_create_customized(options, socket.c_str(), true);
  grpc_alts_credentials_options_destroy(options);
  return internal::Server<grpc::ServerCredentials>::Make(c);
}

// Peer gives the account at the other end, user@machine; empty if the connection does not use ALTS.
// context is a grpc::ServerContext, or a grpc::ClientContext once the call has begun.
template <class Context>
std::string Peer(const Context& context) {
  const auto auth = context.auth_context();
  if (auth == nullptr || internal::First(*auth, "transport_security_type") != "alts") return std::string();
  return internal::First(*auth, "service_account");
}

// PeerAttributes gives what the peer's machine signed of the account beside its name: "uid", "groups", "user" and
// "machine". The names of groups are joined by commas; what is not of a-z 0-9 _ . $ + - @ \ in a name is %XX there:
// "domain%20users". Empty if the connection does not use ALTS. Needs libgrpc++_alts at link time, if it is called.
template <class Context>
std::map<std::string, std::string> PeerAttributes(const Context& context) {
  const auto auth = context.auth_context();
  if (auth == nullptr) return {};
  const auto alts = grpc::experimental::GetAltsContextFromAuthContext(auth);
  if (alts == nullptr) return {};
  return alts->peer_attributes();
}

// Authorize gives OK if the caller is one of accounts, else the status for the handler to return. Capitals count as lower
// case.
template <class Context>
grpc::Status Authorize(const Context& context, const std::vector<std::string>& accounts) {
  const std::string peer = Peer(context);
  if (peer.empty()) return grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "the connection does not use ALTS");
  for (std::string account : accounts) {
    for (char& c : account) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (account == peer) return grpc::Status::OK;
  }
  return grpc::Status(grpc::StatusCode::PERMISSION_DENIED, peer + " may not do this");
}

}  // namespace shared_altsd

#endif  // SHARED_ALTSD_H
