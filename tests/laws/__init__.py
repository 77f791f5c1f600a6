"""Laws: what must hold for any axes, any network, any plan and any budget."""
