"""What keeps decisions in hand: kill switch, rollout, model registry, alerts. All of it pure."""
